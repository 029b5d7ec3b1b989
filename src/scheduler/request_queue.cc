#include "src/scheduler/request_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/mutex.h"
#include "src/base/steady_time.h"
#include "src/request/unavailable.h"

namespace hotlora {
namespace {

constexpr double kMeanWeight = 0.2;  // of the newest request in the moving average

// False if it is not in the list.
bool EraseFrom(std::vector<std::shared_ptr<ImageTask>>& list, const std::shared_ptr<ImageTask>& task) {
  const auto found = std::find(list.begin(), list.end(), task);
  if (found == list.end()) {
    return false;
  }
  list.erase(found);
  return true;
}

}  // namespace

absl::StatusOr<uint32_t> RequestQueue::Admit(const std::shared_ptr<ImageTask>& task) {
  MutexLock lock(&mu_);
  if (closed_) {
    return DrainingError();
  }
  const std::string& id = task->job().request_id;
  if (by_id_.contains(id)) {
    return MakeError(absl::StatusCode::kAlreadyExists, error_reason::kRequestIdRunning,
                     absl::StrCat("request_id \"", id, "\" is running already"));
  }
  const uint32_t before = reserved_ + static_cast<uint32_t>(waiting_.size());
  const uint32_t spare = running_.empty() ? 1 : 0;
  if (before >= capacity_ + spare) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kQueueFull,
                     absl::StrCat("the queue is full: ", capacity_, " requests wait"), RetryDelay());
  }
  const std::string& caller = task->job().caller;
  const auto held = held_by_.find(caller);
  if (client_share_ > 0 && held != held_by_.end() && held->second >= client_share_ + spare) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kClientShare,
                     absl::StrCat("the caller has ", held->second, " requests in the queue; one caller may have ",
                                  client_share_, " (--client-share)"),
                     RetryDelay());
  }
  by_id_[id] = task;
  ++held_by_[caller];
  ++reserved_;
  task->sequence_ = next_sequence_++;
  return before + static_cast<uint32_t>(running_.size());
}

void RequestQueue::Enqueue(std::shared_ptr<ImageTask> task) {
  MutexLock lock(&mu_);
  --reserved_;
  waiting_.push_back(std::move(task));
  changed_.SignalAll();
}

void RequestQueue::MarkReady(const std::shared_ptr<ImageTask>& task) {
  MutexLock lock(&mu_);
  task->ready_ = true;
  changed_.SignalAll();
}

std::vector<std::shared_ptr<ImageTask>> RequestQueue::InOrder() const {
  std::vector<std::shared_ptr<ImageTask>> ordered = waiting_;
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) { return ComesBefore(*a, *b); });
  return ordered;
}

bool RequestQueue::AwaitReady(absl::Duration patience) {
  const absl::Time deadline = SteadyNow() + patience;
  MutexLock lock(&mu_);
  while (!stopped_ && !woken_ && !AnyReady() && changed_.WaitUntil(&mu_, deadline)) {
  }
  const bool woken = std::exchange(woken_, false);
  return !stopped_ && (woken || AnyReady());
}

void RequestQueue::Wake() {
  MutexLock lock(&mu_);
  woken_ = true;
  changed_.SignalAll();
}

bool RequestQueue::AnyReady() const {
  return std::any_of(waiting_.begin(), waiting_.end(), [](const auto& task) { return task->ready_; });
}

std::vector<std::shared_ptr<ImageTask>> RequestQueue::Ready() const {
  MutexLock lock(&mu_);
  std::vector<std::shared_ptr<ImageTask>> ready = InOrder();
  ready.erase(std::remove_if(ready.begin(), ready.end(), [](const auto& task) { return !task->ready_; }), ready.end());
  return ready;
}

bool RequestQueue::Take(const std::shared_ptr<ImageTask>& task) {
  MutexLock lock(&mu_);
  if (!StopWaiting(task)) {
    return false;
  }
  running_.push_back(task);
  return true;
}

void RequestQueue::StepsDone(const std::shared_ptr<ImageTask>& task) {
  MutexLock lock(&mu_);
  EraseFrom(running_, task);
}

bool RequestQueue::Remove(const std::shared_ptr<ImageTask>& task) {
  MutexLock lock(&mu_);
  return StopWaiting(task);
}

bool RequestQueue::StopWaiting(const std::shared_ptr<ImageTask>& task) {
  if (!EraseFrom(waiting_, task)) {
    return false;
  }
  const auto held = held_by_.find(task->job().caller);
  if (--held->second == 0) {
    held_by_.erase(held);
  }
  return true;
}

void RequestQueue::Forget(const std::shared_ptr<ImageTask>& task, double seconds) {
  MutexLock lock(&mu_);
  by_id_.erase(task->job().request_id);
  changed_.SignalAll();
  EraseFrom(running_, task);  // if StepsDone was not called: the caller's next request must not wait for this one
  if (seconds > 0.0) {
    mean_seconds_ = mean_seconds_ == 0.0 ? seconds : mean_seconds_ + kMeanWeight * (seconds - mean_seconds_);
  }
}

std::shared_ptr<ImageTask> RequestQueue::Find(absl::string_view request_id) const {
  MutexLock lock(&mu_);
  const auto found = by_id_.find(request_id);
  return found == by_id_.end() ? nullptr : found->second;
}

std::vector<RequestQueue::Waiting> RequestQueue::Snapshot() const {
  MutexLock lock(&mu_);
  std::vector<Waiting> waiting;
  auto position = static_cast<uint32_t>(running_.size());
  const double seconds_each = mean_seconds_ / static_cast<double>(std::max<size_t>(running_.size(), 1));
  for (auto& task : InOrder()) {
    Waiting& entry = waiting.emplace_back();
    entry.task = std::move(task);
    entry.position = position;
    entry.estimated_seconds = position * seconds_each;
    ++position;
  }
  return waiting;
}

std::vector<std::shared_ptr<ImageTask>> RequestQueue::All() const {
  MutexLock lock(&mu_);
  std::vector<std::shared_ptr<ImageTask>> all;
  for (const auto& [id, task] : by_id_) {
    all.push_back(task);
  }
  return all;
}

uint32_t RequestQueue::depth() const {
  MutexLock lock(&mu_);
  return reserved_ + static_cast<uint32_t>(waiting_.size());
}

void RequestQueue::Close() {
  MutexLock lock(&mu_);
  closed_ = true;
}

bool RequestQueue::closed() const {
  MutexLock lock(&mu_);
  return closed_;
}

bool RequestQueue::AwaitEmpty(absl::Duration timeout) {
  const absl::Time deadline = SteadyNow() + timeout;
  MutexLock lock(&mu_);
  while (!by_id_.empty() && changed_.WaitUntil(&mu_, deadline)) {
  }
  return by_id_.empty();
}

void RequestQueue::Stop() {
  MutexLock lock(&mu_);
  stopped_ = true;
  changed_.SignalAll();
}

bool RequestQueue::stopped() const {
  MutexLock lock(&mu_);
  return stopped_;
}

absl::Duration RequestQueue::RetryDelay() const {
  return std::clamp(absl::Seconds(mean_seconds_), absl::Seconds(1), absl::Minutes(1));
}

}  // namespace hotlora
