#include "src/base/error_details.h"

#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "src/base/error_reason.h"

namespace hotlora {
namespace {

constexpr char kPayloadUrl[] = "hotlora/error_details";

}  // namespace

absl::Status MakeError(absl::StatusCode code, absl::string_view message, ErrorDetails details) {
  nlohmann::json payload = {{"reason", details.reason}, {"violations", nlohmann::json::array()}};
  for (const FieldViolation& violation : details.violations) {
    payload["violations"].push_back({violation.field, violation.description});
  }
  if (details.retry_delay.has_value()) {
    payload["retry_ms"] = absl::ToInt64Milliseconds(*details.retry_delay);
  }
  absl::Status status(code, message);
  status.SetPayload(kPayloadUrl, absl::Cord(payload.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  return status;
}

absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message) {
  return MakeError(code, message, ErrorDetails{std::string(reason), {}, std::nullopt});
}

absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                       absl::Duration retry_delay) {
  return MakeError(code, message, ErrorDetails{std::string(reason), {}, retry_delay});
}

absl::Status CallDeadlinePassed() {
  return MakeError(absl::StatusCode::kDeadlineExceeded, error_reason::kDeadlineExceeded,
                   "the call's deadline has passed");
}

ErrorDetails GetErrorDetails(const absl::Status& status) {
  ErrorDetails details;
  details.reason = absl::StatusCodeToString(status.code());
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) {
    return details;
  }
  const nlohmann::json json = nlohmann::json::parse(std::string(*payload));
  details.reason = json["reason"];
  for (const auto& violation : json["violations"]) {
    details.violations.push_back({violation[0], violation[1]});
  }
  if (json.contains("retry_ms")) {
    details.retry_delay = absl::Milliseconds(json["retry_ms"].get<int64_t>());
  }
  return details;
}

}  // namespace hotlora
