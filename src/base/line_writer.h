#ifndef HOTLORA_SRC_BASE_LINE_WRITER_H_
#define HOTLORA_SRC_BASE_LINE_WRITER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "src/base/mutex.h"

namespace hotlora {

// Writes lines to a descriptor on a thread of its own, so that a full disk or a pipe that is not read delays no caller.
// Lines that come while kMaxWaiting wait, and lines that cannot be written, are dropped and reported. Where only a part
// of a line could be written, the next one begins a line of its own. Thread-safe.
class LineWriter {
 public:
  static constexpr size_t kMaxWaiting = 4096;

  // `descriptor` outlives the writer. `on_lost` is called once for each line that is dropped, on any thread.
  LineWriter(int descriptor, std::function<void()> on_lost);
  ~LineWriter();  // writes what waits, for at most a second

  // Returns at once. The line break is added.
  void Write(std::string line);

  // Waits until everything that was given before is written or dropped. False if `patience` ends first.
  bool Flush(absl::Duration patience);

 private:
  void Run();
  std::optional<std::string> AwaitLine();  // the first one that waits; nullopt at the end
  void FinishLine();
  size_t WriteOut(const std::string& text);  // the bytes that were written
  bool IsOver();

  const int descriptor_;
  const std::function<void()> on_lost_;
  Mutex mu_;
  CondVar changed_;
  std::deque<std::string> waiting_ ABSL_GUARDED_BY(mu_);    // the first one is being written
  uint64_t accepted_ ABSL_GUARDED_BY(mu_) = 0;              // lines ever put into waiting_
  uint64_t finished_ ABSL_GUARDED_BY(mu_) = 0;              // of those, the ones written or dropped since
  std::optional<absl::Time> stop_by_ ABSL_GUARDED_BY(mu_);  // as SteadyNow
  std::thread thread_;                                      // last: it uses all the others
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_LINE_WRITER_H_
