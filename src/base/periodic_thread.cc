#include "src/base/periodic_thread.h"

#include <utility>

#include "src/base/named_thread.h"
#include "src/base/steady_time.h"

namespace hotlora {

PeriodicThread::PeriodicThread(std::string name, absl::Duration period, std::function<void()> work)
    : thread_(StartNamedThread(std::move(name), [this, period, work = std::move(work)] {
        while (true) {
          {
            std::unique_lock<std::mutex> lock(mu_);
            if (AwaitSteadily(changed_, lock, period, [this] { return ended_; })) {
              return;
            }
          }
          work();
        }
      })) {}

PeriodicThread::~PeriodicThread() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    ended_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

}  // namespace hotlora
