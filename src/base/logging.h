#ifndef HOTLORA_SRC_BASE_LOGGING_H_
#define HOTLORA_SRC_BASE_LOGGING_H_

// The one door to spdlog. Lines go to stderr. Thread-safe.
//
// Never log a prompt, a token or anything else a caller sent at info level or above; log the request id.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace hotlora {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Sets the lowest level that is written: "debug", "info", "warning" or "error".
absl::Status SetLogLevel(absl::string_view level);
// The same, and what it was before.
LogLevel ExchangeLogLevel(LogLevel level);
LogLevel CurrentLogLevel();

// How many lines of that level were written, and how many lines somebody else (the access log) could not write.
uint64_t LogLineCount(LogLevel level);
uint64_t LostLogLineCount();
void CountLostLogLine();

// `value` as one field of a line: spaces, '%' and what is not printable ASCII are percent-encoded, so that a caller's
// text cannot pass for further fields.
std::string LogField(absl::string_view value);

// Writes one line; line breaks and control characters in `message` are escaped.
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
