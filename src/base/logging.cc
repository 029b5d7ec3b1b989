#include "src/base/logging.h"

#include <string>

#include "absl/strings/escaping.h"
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace hotlora {
namespace {

spdlog::logger& Logger() {
  static spdlog::logger* const logger = [] {
    auto* created = new spdlog::logger("hotlora", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    created->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    created->flush_on(spdlog::level::info);
    return created;
  }();
  return *logger;
}

}  // namespace

absl::Status SetLogLevel(absl::string_view level) {
  if (level == "debug") {
    Logger().set_level(spdlog::level::debug);
  } else if (level == "info") {
    Logger().set_level(spdlog::level::info);
  } else if (level == "warning") {
    Logger().set_level(spdlog::level::warn);
  } else if (level == "error") {
    Logger().set_level(spdlog::level::err);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("log level is \"", level, "\"; allowed are debug, info, warning, error"));
  }
  return absl::OkStatus();
}

void Log(LogLevel level, absl::string_view message) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err};
  const spdlog::level::level_enum spdlog_level = kLevels[static_cast<int>(level)];
  if (Logger().should_log(spdlog_level)) {
    Logger().log(spdlog_level, "{}", absl::Utf8SafeCEscape(message));
  }
}

}  // namespace hotlora
