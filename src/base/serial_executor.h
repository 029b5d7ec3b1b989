#ifndef HOTLORA_SRC_BASE_SERIAL_EXECUTOR_H_
#define HOTLORA_SRC_BASE_SERIAL_EXECUTOR_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

#include "src/base/mutex.h"
#include "src/base/stopwatch.h"

namespace hotlora {

// One named thread that runs closures. Closures of one key run in the order they were posted. Keys take turns, one
// closure each, so that the many closures of one caller delay another caller's by one closure at most. Thread-safe.
class SerialExecutor {
 public:
  explicit SerialExecutor(std::string name);
  ~SerialExecutor();  // runs what is posted, then joins

  // REQUIRES: not called once the destructor began.
  void Post(absl::string_view key, std::function<void()> work);

  struct Load {
    double seconds = 0.0;  // since the closure that runs began; 0 if none runs
    size_t waiting = 0;    // closures that were posted and have not begun
  };
  Load load() const;

 private:
  void Run();

  mutable Mutex mu_;
  CondVar changed_;
  std::deque<std::string> turns_ ABSL_GUARDED_BY(mu_);  // the keys of work_, each once, in the order of their turns
  absl::flat_hash_map<std::string, std::deque<std::function<void()>>> work_ ABSL_GUARDED_BY(mu_);
  size_t waiting_ ABSL_GUARDED_BY(mu_) = 0;
  std::optional<Stopwatch> running_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_SERIAL_EXECUTOR_H_
