#ifndef HOTLORA_CLIENT_ERROR_REPORT_H_
#define HOTLORA_CLIENT_ERROR_REPORT_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/support/status.h>
#include <nlohmann/json.hpp>

namespace hotlora {

// What a failed call says to a human or a script: gRPC's status with the google.rpc details
// decoded.
struct ErrorReport {
  std::string code;  // "INVALID_ARGUMENT"
  std::string message;
  std::string reason;                                       // empty: none was sent
  std::vector<std::pair<std::string, std::string>> fields;  // bad field, what is wrong with it
  std::optional<double> retry_seconds;
  std::string request_id;
};

ErrorReport MakeErrorReport(const grpc::Status& status, const std::string& request_id);

// Lines for a terminal, the last one ended.
std::string ToText(const ErrorReport& report);

// {"error": {...}}
nlohmann::json ToJson(const ErrorReport& report);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_ERROR_REPORT_H_
