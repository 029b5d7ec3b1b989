#ifndef HOTLORA_SRC_BASE_PERIODIC_THREAD_H_
#define HOTLORA_SRC_BASE_PERIODIC_THREAD_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/time/time.h"

namespace hotlora {

// A named thread that runs `work` again and again, with a pause of `period` before each time (steady_time.h), until
// this object ends.
class PeriodicThread {
 public:
  PeriodicThread(std::string name, absl::Duration period, std::function<void()> work);
  ~PeriodicThread();  // ends a pause at once, and waits for work that is under way

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool ended_ = false;  // guarded by mu_
  std::thread thread_;  // last: it uses all the others
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_PERIODIC_THREAD_H_
