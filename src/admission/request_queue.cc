#include "src/admission/request_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"

namespace hotlora {
namespace {

constexpr double kMeanWeight = 0.2;  // of the newest request in the moving average

}  // namespace

absl::StatusOr<uint32_t> RequestQueue::Admit(const std::shared_ptr<QueuedRequest>& request) {
  absl::MutexLock lock(&mu_);
  if (closed_) {
    return MakeError(absl::StatusCode::kUnavailable, "the server is shutting down", {"DRAINING", {}, absl::Seconds(1)});
  }
  const std::string& id = request->job().request_id;
  if (by_id_.contains(id)) {
    return MakeError(absl::StatusCode::kAlreadyExists, "REQUEST_ID_RUNNING",
                     absl::StrCat("request_id \"", id, "\" is running already"));
  }
  const uint32_t before = reserved_ + static_cast<uint32_t>(waiting_.size());
  if (before + (running_ != nullptr ? 1 : 0) >= capacity_ + 1) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("the queue is full: ", capacity_, " requests wait"),
                     {"QUEUE_FULL", {}, RetryDelay()});
  }
  by_id_[id] = request;
  ++reserved_;
  request->sequence_ = next_sequence_++;
  return before + (running_ != nullptr ? 1 : 0);
}

void RequestQueue::Enqueue(std::shared_ptr<QueuedRequest> request) {
  absl::MutexLock lock(&mu_);
  --reserved_;
  waiting_.push_back(std::move(request));
}

void RequestQueue::MarkReady(const std::shared_ptr<QueuedRequest>& request) {
  absl::MutexLock lock(&mu_);
  request->ready_ = true;
}

std::vector<std::shared_ptr<QueuedRequest>> RequestQueue::InOrder() const {
  std::vector<std::shared_ptr<QueuedRequest>> ordered = waiting_;
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return a->job_.priority != b->job_.priority ? a->job_.priority > b->job_.priority : a->sequence_ < b->sequence_;
  });
  return ordered;
}

std::shared_ptr<QueuedRequest> RequestQueue::TakeReady(absl::Duration patience) {
  absl::MutexLock lock(&mu_);
  running_ = nullptr;
  const auto some_ready = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return stopped_ || std::any_of(waiting_.begin(), waiting_.end(), [](const auto& r) { return r->ready_; });
  };
  if (!mu_.AwaitWithTimeout(absl::Condition(&some_ready), patience) || stopped_) {
    return nullptr;
  }
  for (const std::shared_ptr<QueuedRequest>& request : InOrder()) {
    if (request->ready_) {
      waiting_.erase(std::find(waiting_.begin(), waiting_.end(), request));
      running_ = request;
      return request;
    }
  }
  return nullptr;  // not reached: one was ready under this lock
}

bool RequestQueue::Remove(const std::shared_ptr<QueuedRequest>& request) {
  absl::MutexLock lock(&mu_);
  const auto found = std::find(waiting_.begin(), waiting_.end(), request);
  if (found == waiting_.end()) {
    return false;
  }
  waiting_.erase(found);
  return true;
}

void RequestQueue::Forget(const std::shared_ptr<QueuedRequest>& request, double seconds) {
  absl::MutexLock lock(&mu_);
  by_id_.erase(request->job().request_id);
  if (running_ == request) {
    running_ = nullptr;  // its place is free before its caller hears the end
  }
  if (seconds > 0.0) {
    mean_seconds_ = mean_seconds_ == 0.0 ? seconds : mean_seconds_ + kMeanWeight * (seconds - mean_seconds_);
  }
}

std::shared_ptr<QueuedRequest> RequestQueue::Find(absl::string_view request_id) const {
  absl::MutexLock lock(&mu_);
  const auto found = by_id_.find(request_id);
  return found == by_id_.end() ? nullptr : found->second;
}

std::vector<RequestQueue::Waiting> RequestQueue::Snapshot() const {
  absl::MutexLock lock(&mu_);
  std::vector<Waiting> waiting;
  uint32_t position = running_ != nullptr ? 1 : 0;
  for (auto& request : InOrder()) {
    waiting.push_back({std::move(request), position, position * mean_seconds_});
    ++position;
  }
  return waiting;
}

std::vector<std::shared_ptr<QueuedRequest>> RequestQueue::All() const {
  absl::MutexLock lock(&mu_);
  std::vector<std::shared_ptr<QueuedRequest>> all;
  for (const auto& [id, request] : by_id_) {
    all.push_back(request);
  }
  return all;
}

uint32_t RequestQueue::depth() const {
  absl::MutexLock lock(&mu_);
  return reserved_ + static_cast<uint32_t>(waiting_.size());
}

void RequestQueue::Close() {
  absl::MutexLock lock(&mu_);
  closed_ = true;
}

bool RequestQueue::AwaitEmpty(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto empty = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return by_id_.empty(); };
  return mu_.AwaitWithTimeout(absl::Condition(&empty), timeout);
}

void RequestQueue::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
}

bool RequestQueue::stopped() const {
  absl::MutexLock lock(&mu_);
  return stopped_;
}

absl::Duration RequestQueue::RetryDelay() const {
  return std::clamp(absl::Seconds(mean_seconds_), absl::Seconds(1), absl::Minutes(1));
}

}  // namespace hotlora
