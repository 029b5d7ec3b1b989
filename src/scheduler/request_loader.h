#ifndef HOTLORA_SRC_SCHEDULER_REQUEST_LOADER_H_
#define HOTLORA_SRC_SCHEDULER_REQUEST_LOADER_H_

// Gathers what a request needs before the step thread can take it: its pictures are decoded, and an init image becomes
// latents, its embeddings are read, its adapters, ControlNets and image prompts are leased, and with the latter the
// image encoder. Then the loader marks the request ready in the queue, or ends it with the error.
//
// Each kind of work has a thread of its own, so that none delays another kind:
//   lookup    decides what is missing; leases what is resident. Never waits for a file.
//   picture   decodes what a request sends. A picture of the largest size takes some tenths of a second. Of those for
//             image prompts only what the image encoder sees stays. After an init image it waits until the decode
//             thread has encoded it: one at a time is in the decode line. Decoded control pictures wait with their
//             request. If those of other requests have all the room, it waits until one of these has started, with the
//             files as they were sent.
//   adapter   reads the files of adapters, ControlNets, image prompts and embeddings, and copies them to the device.
// On the picture and the adapter thread callers take turns (serial_executor.h): many requests of one caller delay
// another caller's request by one init image, or one read, at most.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "src/adapters/adapter_store.h"
#include "src/adapters/embedding_store.h"
#include "src/base/mutex.h"
#include "src/base/serial_executor.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/request_pictures.h"
#include "src/scheduler/image_task.h"
#include "src/scheduler/picture_room.h"
#include "src/scheduler/request_queue.h"
#include "src/scheduler/step_scheduler.h"

namespace hotlora {

// Thread-safe.
class RequestLoader {
 public:
  // LoadRequestPictures, or a test's own.
  using DecodeFunction = std::function<absl::StatusOr<RequestPictures>(const ImageJob&, MiddleSquare seen)>;

  // The most bytes of decoded control pictures that wait. One request has 96 MiB at the most.
  static constexpr int64_t kPictureBytes = int64_t{256} << 20;

  // All arguments outlive the loader.
  RequestLoader(AdapterStore* adapters, AdapterStore* controls, EmbeddingStore* embeddings, RequestQueue* queue,
                StepScheduler* scheduler, Metrics* metrics, DecodeFunction decode = LoadRequestPictures,
                int64_t picture_bytes = kPictureBytes);

  // REQUIRES: every task has ended, and no call is under way or follows. Finishes what was begun.
  ~RequestLoader() = default;

  // Gathers what the enqueued task needs.
  void Load(const std::shared_ptr<ImageTask>& task);

  // Runs `work`, which reads an adapter's file, on the adapter thread, in the caller's turn.
  void RunOnAdapterThread(const std::string& caller, std::function<void()> work);

  // What the adapter thread does.
  SerialExecutor::Load adapter_load() const { return adapter_thread_.load(); }

  // Tries again for the requests whose adapters did not fit beside those that others use, in the order in which they
  // came. Until then they wait in the queue, where their deadline or a cancel ends them. Never waits.
  void RetryForRoom();

  // Ends a waiting task that is cancelled or past its deadline. A task that runs ends itself at its next step, one that
  // is being loaded when the current piece of work is done.
  void EndIfUnwanted(const std::shared_ptr<ImageTask>& task);

 private:
  using TaskPtr = std::shared_ptr<ImageTask>;

  void Continue(const TaskPtr& task);
  void ReadEncoder(const TaskPtr& task);
  void PreparePictures(const TaskPtr& task, MiddleSquare seen);
  void Again(const TaskPtr& task, const absl::Status& status);
  void Acquire(const TaskPtr& task);
  bool NeedsFiles(const ImageJob& job);
  absl::StatusOr<LoadedFiles> LoadFiles(const ImageTask& task);
  absl::Status LeaseNetworks(const ImageTask& task, LoadedFiles& loaded);
  void AwaitRoom(const TaskPtr& task);
  void Fail(const TaskPtr& task, const absl::Status& status);

  AdapterStore* const adapters_;
  AdapterStore* const controls_;  // ControlNets, image prompts and their encoder
  EmbeddingStore* const embeddings_;
  RequestQueue* const queue_;
  StepScheduler* const scheduler_;
  Metrics* const metrics_;
  const DecodeFunction decode_;
  const std::shared_ptr<PictureRoom> picture_room_;  // pictures may outlive the loader

  Mutex mu_;
  std::vector<TaskPtr> awaiting_room_ ABSL_GUARDED_BY(mu_);

  // The lookup thread posts to the other two, so it ends first. These post to the lookup thread only for a request that
  // has not ended.
  SerialExecutor adapter_thread_;
  SerialExecutor picture_thread_;
  SerialExecutor lookup_thread_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_REQUEST_LOADER_H_
