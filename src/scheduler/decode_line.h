#ifndef HOTLORA_SRC_SCHEDULER_DECODE_LINE_H_
#define HOTLORA_SRC_SCHEDULER_DECODE_LINE_H_

// What the VAE does, on a thread of its own, so that steps do not wait: before the first step an init image to latents;
// after the last one latents to pixels to a file, and the end of the request. Callers take turns.

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/base/mutex.h"
#include "src/base/serial_executor.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/init_picture.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/image_run.h"
#include "src/scheduler/memory_admission.h"

namespace hotlora {

// Thread-safe.
class DecodeLine {
 public:
  using EndTask = std::function<void(const std::shared_ptr<ImageTask>&, const absl::Status&, double run_seconds)>;
  using OnError = std::function<void(const absl::Status&)>;

  // `end_task` ends a request when its images are out; `on_error` is told why one could not be decoded, or why an init
  // image could not be encoded. `pipeline`, `memory` and `metrics` outlive this object.
  DecodeLine(Pipeline* pipeline, MemoryAdmission* memory, Metrics* metrics, EndTask end_task, OnError on_error);

  // Decodes `row` of `job` on this thread for the first time, so that no caller's image pays for what is made once.
  // Blocks until it is done.
  absl::Status WarmUp(const ImageJob& job, const Row& row);

  // Gives the task its init latents, and adds to its summary how long they took. Blocks until it is done. A piece of
  // work of ImageTask::BeginLoading: while the task waits for its turn, a cancel ends it at once.
  //   Cancelled, DeadlineExceeded   the task has ended, or is not wanted any more (ImageTask::Wanted)
  //   ResourceExhausted             OUT_OF_MEMORY
  //   others                        of Pipeline::EncodeInit
  absl::Status EncodeInit(ImageTask& task, const InitPicture& picture);

  // Decodes the finished row in its turn, unless its request has been cancelled.
  void Decode(std::shared_ptr<ImageRun> run, RunningRow row);

  // The same with a row of the first pass of two: makes of it what the second pass begins with, and puts it into
  // run->refined. `woken` is called then.
  void Refine(std::shared_ptr<ImageRun> run, RunningRow row, std::function<void()> woken);

  // After the rows of `run` that are in line: ends its request with run->status, or why a row could not be decoded.
  void Finish(std::shared_ptr<ImageRun> run);

  // Rows in line. The step thread takes no new work while they are many: that bounds the memory they hold.
  uint32_t length() const;
  void AwaitShorterThan(uint32_t length) const;

 private:
  // Runs `work` in the caller's turn, and waits for it.
  absl::Status RunInTurn(absl::string_view caller, absl::FunctionRef<absl::Status()> work);
  // `work` on the row in its turn; the row counts as in line until then.
  void Post(std::shared_ptr<ImageRun> run, RunningRow row, std::function<void(ImageRun&, RunningRow)> work);
  absl::Status DecodeRow(ImageRun& run, RunningRow row);
  absl::StatusOr<RgbImage> DecodePixels(ImageTask& task, const MemoryWork& work, RunningRow row);
  absl::StatusOr<std::shared_ptr<const InitLatents>> EncodePicture(ImageTask& task, const DenoiseOptions& options,
                                                                   const InitPicture& picture);
  absl::StatusOr<std::shared_ptr<const InitLatents>> RefineRow(ImageRun& run, RunningRow row);

  Pipeline* const pipeline_;
  MemoryAdmission* const memory_;
  Metrics* const metrics_;
  const EndTask end_task_;
  const OnError on_error_;

  mutable Mutex mu_;
  mutable CondVar changed_;
  uint32_t length_ ABSL_GUARDED_BY(mu_) = 0;

  SerialExecutor thread_;  // last: it uses all the others
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_DECODE_LINE_H_
