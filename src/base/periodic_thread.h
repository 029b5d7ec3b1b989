#ifndef HOTLORA_SRC_BASE_PERIODIC_THREAD_H_
#define HOTLORA_SRC_BASE_PERIODIC_THREAD_H_

#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "src/base/mutex.h"

namespace hotlora {

// A named thread that runs `work` again and again, with a pause of `period` before each time (steady_time.h), until
// this object ends.
class PeriodicThread {
 public:
  PeriodicThread(std::string name, absl::Duration period, std::function<void()> work);
  ~PeriodicThread();  // ends a pause at once, and waits for work that is under way

 private:
  bool Pause(absl::Duration period);  // false if this object ends

  Mutex mu_;
  CondVar changed_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses all the others
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_PERIODIC_THREAD_H_
