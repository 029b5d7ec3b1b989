#include "src/base/logging.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include "src/base/enum_size.h"
#include "src/base/line_writer.h"

namespace hotlora {
namespace {

constexpr spdlog::level::level_enum kSpdlogLevels[] = {spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                                                       spdlog::level::err};
static_assert(std::size(kSpdlogLevels) == kEnumSize<LogLevel>);
std::atomic<LogLevel> current_level{LogLevel::kInfo};

// Never destroyed: threads may log until the process ends.
LineWriter& Writer() {
  static LineWriter* const writer = [] {
    std::atexit(FlushLog);
    return new LineWriter(STDERR_FILENO, CountLostLogLine);
  }();
  return *writer;
}

class LineSink : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    Writer().Write(std::string(line.data(), line.size()));
  }
  void flush_() override {}
};

spdlog::logger& Logger() {
  static spdlog::logger* const logger = [] {
    auto sink = std::make_shared<LineSink>();
    // No line break at the end: the writer adds it.
    sink->set_formatter(std::make_unique<spdlog::pattern_formatter>("%Y-%m-%dT%H:%M:%S.%e%z %l %v",
                                                                    spdlog::pattern_time_type::local, std::string()));
    return new spdlog::logger("hotlora", std::move(sink));
  }();
  return *logger;
}

std::array<std::atomic<uint64_t>, kEnumSize<LogLevel>> line_counts{};
std::atomic<uint64_t> lost_lines{0};

}  // namespace

uint64_t LogLineCount(LogLevel level) { return line_counts[static_cast<size_t>(level)]; }
uint64_t LostLogLineCount() { return lost_lines; }
void CountLostLogLine() { ++lost_lines; }

absl::Status SetLogLevel(absl::string_view level) {
  const auto name = std::find(std::begin(kLogLevelNames), std::end(kLogLevelNames), level);
  if (name == std::end(kLogLevelNames)) {
    return absl::InvalidArgumentError(
        absl::StrCat("log level is \"", level, "\"; allowed are debug, info, warning, error"));
  }
  ExchangeLogLevel(static_cast<LogLevel>(name - std::begin(kLogLevelNames)));
  return absl::OkStatus();
}

LogLevel ExchangeLogLevel(LogLevel level) {
  Logger().set_level(kSpdlogLevels[static_cast<size_t>(level)]);
  return current_level.exchange(level);
}

LogLevel CurrentLogLevel() { return current_level; }

void FlushLog() { Writer().Flush(absl::Seconds(1)); }

void LogPlain(absl::string_view line) { Writer().Write(std::string(line)); }

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
