#ifndef HOTLORA_SERVER_ACCESS_LOG_H_
#define HOTLORA_SERVER_ACCESS_LOG_H_

// One line of JSON for each call (docs/operations.md lists the keys). Prompts, images and tokens are never in it.

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "src/request/image_events.h"

namespace hotlora {

// What a line tells of a request for images.
struct ImageAccess {
  uint32_t width = 0, height = 0;  // 0: not given
  uint32_t steps = 0;              // 0: not given
  uint32_t images = 0;             // asked for
  uint64_t image_bytes = 0;        // handed to the caller
  ImageSummary summary;            // as far as the request came
  std::vector<std::string> adapters_asked;
};

struct AccessEntry {
  absl::Time time;  // of arrival
  std::string method;
  std::string code;    // "OK", "INVALID_ARGUMENT"
  std::string reason;  // of ErrorInfo; empty: OK
  std::string request_id;
  std::string traceparent;  // W3C Trace Context; empty: the caller sent none
  std::string peer;
  double seconds = 0;
  std::optional<ImageAccess> image;
};

// The line, without its line break.
std::string ToJsonLine(const AccessEntry& entry);

// Writes lines on a thread of its own, so that a full disk or a pipe nobody reads delays no call: lines beyond
// kMaxWaiting are dropped and counted (CountLostLogLine), as those that cannot be written are. Thread-safe.
class AccessLog {
 public:
  static constexpr size_t kMaxWaiting = 4096;

  // Appends to the file `path`; "-" is standard output. InvalidArgument where it cannot be opened.
  static absl::StatusOr<std::unique_ptr<AccessLog>> Open(const std::string& path);
  // `descriptor` is closed at the end where it is `owned`.
  AccessLog(int descriptor, bool owned);
  ~AccessLog();  // writes what waits, for at most a second

  void Write(std::string line);

 private:
  void Run();
  bool WriteOut(const std::string& text);
  bool stopping();

  const int descriptor_;
  const bool owned_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::string> waiting_;                               // guarded by mu_
  std::optional<std::chrono::steady_clock::time_point> stop_by_;  // guarded by mu_
  std::thread thread_;                                            // last: it uses all the others
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_ACCESS_LOG_H_
