#include "src/base/serial_executor.h"

#include <utility>

#include "src/base/named_thread.h"

namespace hotlora {

SerialExecutor::SerialExecutor(std::string name) : thread_(StartNamedThread(std::move(name), [this] { Run(); })) {}

SerialExecutor::~SerialExecutor() {
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
  }
  thread_.join();
}

void SerialExecutor::Post(std::function<void()> work) {
  absl::MutexLock lock(&mu_);
  work_.push_back(std::move(work));
}

void SerialExecutor::Run() {
  while (true) {
    std::function<void()> work;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(
          +[](SerialExecutor* self) ABSL_NO_THREAD_SAFETY_ANALYSIS { return self->closed_ || !self->work_.empty(); },
          this));
      if (work_.empty()) {
        return;
      }
      work = std::move(work_.front());
      work_.pop_front();
    }
    work();
  }
}

}  // namespace hotlora
