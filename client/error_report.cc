#include "client/error_report.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace hotlora {

ErrorReport MakeErrorReport(const grpc::Status& status, const std::string& request_id) {
  ErrorReport report;
  report.code = absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code()));
  report.message = status.error_message();
  report.request_id = request_id;
  google::rpc::Status rich;
  if (!rich.ParseFromString(status.error_details())) {
    return report;
  }
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
  google::rpc::RetryInfo retry;
  for (const google::protobuf::Any& detail : rich.details()) {
    if (detail.UnpackTo(&info)) {
      report.reason = info.reason();
    } else if (detail.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        report.fields.emplace_back(violation.field(), violation.description());
      }
    } else if (detail.UnpackTo(&retry)) {
      report.retry_seconds = static_cast<double>(retry.retry_delay().seconds()) + retry.retry_delay().nanos() / 1e9;
    }
  }
  return report;
}

std::string ToText(const ErrorReport& report) {
  std::string text = absl::StrCat("error: ", report.code);
  if (!report.reason.empty() && report.reason != report.code) {
    absl::StrAppend(&text, " (", report.reason, ")");
  }
  if (report.fields.empty()) {
    absl::StrAppend(&text, ": ", report.message, "\n");
  } else {
    // The message of a request with bad fields only lists them in one line.
    absl::StrAppend(&text, ": the server refuses the request\n");
    for (const auto& [field, description] : report.fields) {
      absl::StrAppend(&text, "  ", field, field.empty() ? "" : " ", description, "\n");
    }
  }
  if (report.retry_seconds.has_value()) {
    absl::StrAppend(&text, "  try again in ", *report.retry_seconds, " s\n");
  }
  if (report.code == "UNAVAILABLE" && report.reason.empty()) {
    absl::StrAppend(&text, "  is the server running, and is --server right?\n");
  }
  if (report.code == "UNAUTHENTICATED") {
    absl::StrAppend(&text, "  give a token with --token-file or HOTLORA_TOKEN\n");
  }
  if (!report.request_id.empty()) {
    absl::StrAppend(&text, "  request id ", report.request_id, "\n");
  }
  return text;
}

nlohmann::json ToJson(const ErrorReport& report) {
  nlohmann::json error = {{"code", report.code}, {"message", report.message}};
  if (!report.reason.empty()) {
    error["reason"] = report.reason;
  }
  for (const auto& [field, description] : report.fields) {
    error["fields"].push_back({{"field", field}, {"description", description}});
  }
  if (report.retry_seconds.has_value()) {
    error["retry_seconds"] = *report.retry_seconds;
  }
  if (!report.request_id.empty()) {
    error["request_id"] = report.request_id;
  }
  return {{"error", std::move(error)}};
}

}  // namespace hotlora
