#ifndef HOTLORA_SRC_SCHEDULER_REQUEST_QUEUE_H_
#define HOTLORA_SRC_SCHEDULER_REQUEST_QUEUE_H_

// May a request enter, and which one is next? A bounded queue that also knows every request by its id from admission to
// its end. Requests wait here while their adapters load; only those that are ready are handed out.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "src/base/mutex.h"
#include "src/scheduler/image_task.h"

namespace hotlora {

// Whether `a` comes before `b`: by priority, then by arrival.
inline bool ComesBefore(const ImageTask& a, const ImageTask& b) {
  return a.job().priority != b.job().priority ? a.job().priority > b.job().priority : a.sequence() < b.sequence();
}

// Thread-safe. The calls for a request, in order: Admit, Enqueue, MarkReady, then Take and StepsDone, or Remove, and
// Forget at its end.
class RequestQueue {
 public:
  // `capacity`: requests that may wait. `client_share`: how many of them may be of one caller; 0: all.
  explicit RequestQueue(uint32_t capacity, uint32_t client_share = 0)
      : capacity_(capacity), client_share_(client_share) {}

  // Registers the request's id. The request counts as waiting until Take or Remove. While nothing runs, one more may
  // wait, also of each caller. Returns the number of requests before it, including those that run.
  //   AlreadyExists      REQUEST_ID_RUNNING
  //   ResourceExhausted  QUEUE_FULL or CLIENT_SHARE, with a retry delay from how long requests have been taking
  //   Unavailable        DRAINING after Close
  absl::StatusOr<uint32_t> Admit(const std::shared_ptr<ImageTask>& task);

  // The admitted request may now be taken as soon as it is ready.
  void Enqueue(std::shared_ptr<ImageTask> task);

  // What the request needs has been loaded. Before or after Enqueue.
  void MarkReady(const std::shared_ptr<ImageTask>& task);

  // Waits until a request is ready or Wake was called since; false after `patience`, or once Stop was called.
  bool AwaitReady(absl::Duration patience);

  // AwaitReady returns, once: a request that runs has something to do again.
  void Wake();

  // The requests that are ready, in their order (ComesBefore).
  std::vector<std::shared_ptr<ImageTask>> Ready() const;

  // From here on the request runs, until StepsDone or Forget. False if it was not waiting.
  bool Take(const std::shared_ptr<ImageTask>& task);
  void StepsDone(const std::shared_ptr<ImageTask>& task);

  // Takes the request out of those that wait; false if it was not waiting (it runs, or has ended).
  bool Remove(const std::shared_ptr<ImageTask>& task);

  // The request has ended: its id is free. `seconds`: how long the device worked on it, 0 if it never ran.
  void Forget(const std::shared_ptr<ImageTask>& task, double seconds);

  // nullptr if no such request is running or waiting.
  std::shared_ptr<ImageTask> Find(absl::string_view request_id) const;

  struct Waiting {
    std::shared_ptr<ImageTask> task;
    uint32_t position = 0;
    double estimated_seconds = 0;  // 0: unknown
  };
  // All waiting requests, in the order they would be taken if all were ready.
  std::vector<Waiting> Snapshot() const;

  // All requests from admission to the end.
  std::vector<std::shared_ptr<ImageTask>> All() const;

  uint32_t depth() const;
  uint32_t capacity() const { return capacity_; }

  void Close();  // admits no request from now on
  bool closed() const;
  bool AwaitEmpty(absl::Duration timeout);  // true once every request has ended
  void Stop();                              // AwaitReady returns false from now on
  bool stopped() const;

 private:
  absl::Duration RetryDelay() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool AnyReady() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool StopWaiting(const std::shared_ptr<ImageTask>& task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<std::shared_ptr<ImageTask>> InOrder() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint32_t capacity_;
  const uint32_t client_share_;
  mutable Mutex mu_;
  mutable CondVar changed_;
  absl::flat_hash_map<std::string, std::shared_ptr<ImageTask>> by_id_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<ImageTask>> waiting_ ABSL_GUARDED_BY(mu_);
  uint32_t reserved_ ABSL_GUARDED_BY(mu_) = 0;  // admitted, not yet enqueued
  // Waiting requests by caller; no entry is 0.
  absl::flat_hash_map<std::string, uint32_t> held_by_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<ImageTask>> running_ ABSL_GUARDED_BY(mu_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mu_) = 0;
  double mean_seconds_ ABSL_GUARDED_BY(mu_) = 0.0;  // moving average of how long a request runs
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_REQUEST_QUEUE_H_
