#include "src/base/periodic_thread.h"

#include <utility>

#include "src/base/named_thread.h"

namespace hotlora {

PeriodicThread::PeriodicThread(std::string name, absl::Duration period, std::function<void()> work)
    : thread_(StartNamedThread(std::move(name), [this, period, work = std::move(work)] {
        while (true) {
          {
            absl::MutexLock lock(&mu_);
            if (mu_.AwaitWithTimeout(absl::Condition(&ended_), period)) {
              return;
            }
          }
          work();
        }
      })) {}

PeriodicThread::~PeriodicThread() {
  {
    absl::MutexLock lock(&mu_);
    ended_ = true;
  }
  thread_.join();
}

}  // namespace hotlora
