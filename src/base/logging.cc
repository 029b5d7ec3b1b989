#include "src/base/logging.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace hotlora {
namespace {

constexpr spdlog::level::level_enum kSpdlogLevels[] = {spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                                                       spdlog::level::err};
std::atomic<LogLevel> current_level{LogLevel::kInfo};

spdlog::logger& Logger() {
  static spdlog::logger* const logger = [] {
    auto* created = new spdlog::logger("hotlora", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    created->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    created->flush_on(spdlog::level::info);
    return created;
  }();
  return *logger;
}

std::array<std::atomic<uint64_t>, 4> line_counts{};
std::atomic<uint64_t> lost_lines{0};

}  // namespace

uint64_t LogLineCount(LogLevel level) { return line_counts[static_cast<size_t>(level)]; }
uint64_t LostLogLineCount() { return lost_lines; }
void CountLostLogLine() { ++lost_lines; }

absl::Status SetLogLevel(absl::string_view level) {
  static constexpr absl::string_view kNames[] = {"debug", "info", "warning", "error"};
  const auto name = std::find(std::begin(kNames), std::end(kNames), level);
  if (name == std::end(kNames)) {
    return absl::InvalidArgumentError(
        absl::StrCat("log level is \"", level, "\"; allowed are debug, info, warning, error"));
  }
  ExchangeLogLevel(static_cast<LogLevel>(name - std::begin(kNames)));
  return absl::OkStatus();
}

LogLevel ExchangeLogLevel(LogLevel level) {
  Logger().set_level(kSpdlogLevels[static_cast<size_t>(level)]);
  return current_level.exchange(level);
}

LogLevel CurrentLogLevel() { return current_level; }

std::string LogField(absl::string_view value) {
  std::string field;
  for (const unsigned char c : value) {
    if (absl::ascii_isgraph(c) && c != '%') {
      field.push_back(static_cast<char>(c));
    } else {
      absl::StrAppend(&field, "%", absl::Hex(c, absl::kZeroPad2));
    }
  }
  return field;
}

void Log(LogLevel level, absl::string_view message) {
  const spdlog::level::level_enum spdlog_level = kSpdlogLevels[static_cast<size_t>(level)];
  if (Logger().should_log(spdlog_level)) {
    ++line_counts[static_cast<size_t>(level)];
    Logger().log(spdlog_level, "{}", absl::Utf8SafeCEscape(message));
  }
}

}  // namespace hotlora
