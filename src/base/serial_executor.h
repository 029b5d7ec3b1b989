#ifndef HOTLORA_SRC_BASE_SERIAL_EXECUTOR_H_
#define HOTLORA_SRC_BASE_SERIAL_EXECUTOR_H_

#include <deque>
#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace hotlora {

// One named thread that runs closures in the order they were posted. Thread-safe.
class SerialExecutor {
 public:
  explicit SerialExecutor(std::string name);
  ~SerialExecutor();  // runs what is posted, then joins

  // REQUIRES: not called once the destructor began.
  void Post(std::function<void()> work);

 private:
  void Run();

  absl::Mutex mu_;
  std::deque<std::function<void()>> work_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_SERIAL_EXECUTOR_H_
