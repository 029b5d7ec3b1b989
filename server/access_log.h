#ifndef HOTLORA_SERVER_ACCESS_LOG_H_
#define HOTLORA_SERVER_ACCESS_LOG_H_

// One line of JSON for each call (docs/operations.md lists the keys). Prompts, images and tokens are never in it.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "src/base/line_writer.h"
#include "src/request/image_events.h"
#include "src/request/image_request.h"

namespace hotlora {

// What a line tells of a request for images.
struct ImageAccess {
  uint32_t width = 0, height = 0;  // 0: not given
  uint32_t steps = 0;              // 0: not given
  uint32_t images = 0;             // asked for
  std::optional<HiresPass> hires;  // as asked for
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
  uint64_t unlogged_before = 0;  // calls like this one that were left out since the line before
  std::optional<ImageAccess> image;
};

// The line, without its line break.
std::string ToJsonLine(const AccessEntry& entry);

// Lines in a file or a pipe, written as LineWriter does it: no call waits for them, and what is dropped is counted
// (CountLostLogLine). Thread-safe.
class AccessLog {
 public:
  // Appends to the file `path`; "-" is standard output. InvalidArgument if it cannot be opened.
  static absl::StatusOr<std::unique_ptr<AccessLog>> Open(const std::string& path);
  // `descriptor` is closed at the end if it is `owned`.
  AccessLog(int descriptor, bool owned);
  ~AccessLog();  // writes what waits, for at most a second

  void Write(std::string line);

 private:
  const int descriptor_;
  const bool owned_;
  std::optional<LineWriter> writer_;  // ends before the descriptor
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_ACCESS_LOG_H_
