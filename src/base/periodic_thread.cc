#include "src/base/periodic_thread.h"

#include <utility>

#include "src/base/named_thread.h"
#include "src/base/steady_time.h"

namespace hotlora {

PeriodicThread::PeriodicThread(std::string name, absl::Duration period, std::function<void()> work)
    : thread_(StartNamedThread(std::move(name), [this, period, work = std::move(work)] {
        while (Pause(period)) {
          work();
        }
      })) {}

PeriodicThread::~PeriodicThread() {
  {
    MutexLock lock(&mu_);
    ended_ = true;
  }
  changed_.SignalAll();
  thread_.join();
}

bool PeriodicThread::Pause(absl::Duration period) {
  const absl::Time end = SteadyNow() + period;
  MutexLock lock(&mu_);
  while (!ended_ && changed_.WaitUntil(&mu_, end)) {
  }
  return !ended_;
}

}  // namespace hotlora
