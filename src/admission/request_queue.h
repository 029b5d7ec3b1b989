#ifndef HOTLORA_SRC_ADMISSION_REQUEST_QUEUE_H_
#define HOTLORA_SRC_ADMISSION_REQUEST_QUEUE_H_

// May a request enter, and which one is next? A bounded queue that also knows every request by its id from admission to
// its end. Requests wait here while their adapters load, and are handed out ready ones first.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "src/request/image_job.h"

namespace hotlora {

// What waits. The scheduler derives its task from it.
class QueuedRequest {
 public:
  explicit QueuedRequest(ImageJob job) : job_(std::move(job)) {}
  virtual ~QueuedRequest() = default;

  const ImageJob& job() const { return job_; }

 private:
  friend class RequestQueue;
  const ImageJob job_;
  uint64_t sequence_ = 0;  // of admission; these two are guarded by the queue's mutex
  bool ready_ = false;
};

// Thread-safe. A request's way: Admit, Enqueue, MarkReady, then TakeReady or Remove, and Forget at its end.
class RequestQueue {
 public:
  explicit RequestQueue(uint32_t capacity) : capacity_(capacity) {}

  // Registers the request's id and takes a place, which counts until TakeReady or Remove; the one request that runs has
  // a place of its own. Returns the number of requests before it.
  //   AlreadyExists      REQUEST_ID_RUNNING
  //   ResourceExhausted  QUEUE_FULL, with a retry delay from how long requests have been taking
  //   Unavailable        DRAINING after Close
  absl::StatusOr<uint32_t> Admit(const std::shared_ptr<QueuedRequest>& request);

  // The admitted request may now be taken as soon as it is ready.
  void Enqueue(std::shared_ptr<QueuedRequest> request);

  // Its adapters are there, or failed to come: there is nothing to wait for. Before or after Enqueue.
  void MarkReady(const std::shared_ptr<QueuedRequest>& request);

  // The ready request of highest priority, the earliest of those. Waits for one; nullptr after `patience`, or once Stop
  // was called.
  std::shared_ptr<QueuedRequest> TakeReady(absl::Duration patience);

  // Takes the request out where it waits; false where it does not (it runs, or has ended).
  bool Remove(const std::shared_ptr<QueuedRequest>& request);

  // The request has ended: its id and its place are free. `seconds`: how long the device worked on it, 0 where it never
  // ran.
  void Forget(const std::shared_ptr<QueuedRequest>& request, double seconds);

  // nullptr where no such request is running or waiting.
  std::shared_ptr<QueuedRequest> Find(absl::string_view request_id) const;

  struct Waiting {
    std::shared_ptr<QueuedRequest> request;
    uint32_t position = 0;
    double estimated_seconds = 0;  // 0: unknown
  };
  // Everybody who waits, in the order they would be taken if all were ready.
  std::vector<Waiting> Snapshot() const;

  // Everybody from admission to the end.
  std::vector<std::shared_ptr<QueuedRequest>> All() const;

  uint32_t depth() const;
  uint32_t capacity() const { return capacity_; }

  void Close();                             // admits nobody from now on
  bool AwaitEmpty(absl::Duration timeout);  // true once every request has ended
  void Stop();                              // TakeReady returns nullptr from now on
  bool stopped() const;

 private:
  absl::Duration RetryDelay() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<std::shared_ptr<QueuedRequest>> InOrder() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint32_t capacity_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::shared_ptr<QueuedRequest>> by_id_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<QueuedRequest>> waiting_ ABSL_GUARDED_BY(mu_);
  uint32_t reserved_ ABSL_GUARDED_BY(mu_) = 0;  // admitted, not yet enqueued
  std::shared_ptr<QueuedRequest> running_ ABSL_GUARDED_BY(mu_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mu_) = 0;
  double mean_seconds_ ABSL_GUARDED_BY(mu_) = 0.0;  // moving average of how long a request runs
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADMISSION_REQUEST_QUEUE_H_
