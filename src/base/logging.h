#ifndef HOTLORA_SRC_BASE_LOGGING_H_
#define HOTLORA_SRC_BASE_LOGGING_H_

// The one door to spdlog. Lines go to stderr, written by a thread of their own (LineWriter): logging never blocks, not
// even if stderr is a pipe that is not read. Lines beyond those that may wait are dropped and counted. Thread-safe.
//
// Never log a prompt, a token or anything else a caller sent at info level or above; log the request id.

#include <cstdint>
#include <iterator>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "src/base/enum_size.h"

namespace hotlora {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
inline constexpr const char* kLogLevelNames[] = {"debug", "info", "warning", "error"};
static_assert(std::size(kLogLevelNames) == kEnumSize<LogLevel>);

// Sets the lowest level that is written: "debug", "info", "warning" or "error".
absl::Status SetLogLevel(absl::string_view level);
// The same, and what it was before.
LogLevel ExchangeLogLevel(LogLevel level);
LogLevel CurrentLogLevel();

// How many lines of that level were logged, and how many lines, the access log's with them, were dropped.
uint64_t LogLineCount(LogLevel level);
uint64_t LostLogLineCount();
void CountLostLogLine();

// `value` as one field of a line: spaces, '%' and what is not printable ASCII are percent-encoded, so that a caller's
// text cannot pass for further fields.
std::string LogField(absl::string_view value);

// Waits until the lines logged so far are written, for at most a second: before the process ends without exit().
void FlushLog();

// A line without time and level: a program's last words to its user.
void LogPlain(absl::string_view line);

// Logs one line; line breaks and control characters in `message` are escaped.
void Log(LogLevel level, absl::string_view message);

template <typename... Parts>
void LogDebug(const Parts&... parts) {
  Log(LogLevel::kDebug, absl::StrCat(parts...));
}
template <typename... Parts>
void LogInfo(const Parts&... parts) {
  Log(LogLevel::kInfo, absl::StrCat(parts...));
}
template <typename... Parts>
void LogWarning(const Parts&... parts) {
  Log(LogLevel::kWarning, absl::StrCat(parts...));
}
template <typename... Parts>
void LogError(const Parts&... parts) {
  Log(LogLevel::kError, absl::StrCat(parts...));
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_LOGGING_H_
