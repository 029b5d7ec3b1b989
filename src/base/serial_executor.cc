#include "src/base/serial_executor.h"

#include <utility>

#include "src/base/named_thread.h"

namespace hotlora {

SerialExecutor::SerialExecutor(std::string name) : thread_(StartNamedThread(std::move(name), [this] { Run(); })) {}

SerialExecutor::~SerialExecutor() {
  {
    MutexLock lock(&mu_);
    closed_ = true;
  }
  changed_.SignalAll();
  thread_.join();
}

void SerialExecutor::Post(absl::string_view key, std::function<void()> work) {
  MutexLock lock(&mu_);
  std::deque<std::function<void()>>& of_key = work_[key];
  if (of_key.empty()) {
    turns_.emplace_back(key);
  }
  of_key.push_back(std::move(work));
  ++waiting_;
  changed_.SignalAll();
}

SerialExecutor::Load SerialExecutor::load() const {
  MutexLock lock(&mu_);
  return {running_.has_value() ? running_->Seconds() : 0.0, waiting_};
}

void SerialExecutor::Run() {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(&mu_);
      while (!closed_ && turns_.empty()) {
        changed_.Wait(&mu_);
      }
      if (turns_.empty()) {
        return;
      }
      std::string key = std::move(turns_.front());
      turns_.pop_front();
      const auto of_key = work_.find(key);
      work = std::move(of_key->second.front());
      of_key->second.pop_front();
      if (of_key->second.empty()) {
        work_.erase(of_key);
      } else {
        turns_.push_back(std::move(key));
      }
      --waiting_;
      running_.emplace();
    }
    work();
    work = nullptr;
    MutexLock lock(&mu_);
    running_.reset();
  }
}

}  // namespace hotlora
