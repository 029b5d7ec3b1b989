#ifndef HOTLORA_SRC_BASE_ERROR_DETAILS_H_
#define HOTLORA_SRC_BASE_ERROR_DETAILS_H_

// What an absl::Status carries for the caller beside code and message: the machine-readable reason, every bad field,
// and when to retry. server/status_mapping.cc turns it into google.rpc ErrorInfo, BadRequest and RetryInfo; the engine
// itself knows no protobuf.

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace hotlora {

struct FieldViolation {
  std::string field;        // path in the request message, such as "adapters[1].weight"
  std::string description;  // the value and the allowed range
};

struct ErrorDetails {
  std::string reason;  // UPPER_SNAKE_CASE, at most 63 characters, such as "ADAPTER_NOT_FOUND"
  std::vector<FieldViolation> violations;
  std::optional<absl::Duration> retry_delay;  // set when trying again later helps
};

// A status of `code` that carries `details`. `code` must not be OK.
absl::Status MakeError(absl::StatusCode code, absl::string_view message, ErrorDetails details);

// Shorthand for an error with nothing but a reason.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message);

// Shorthand for an error that goes away: trying again after `retry_delay` may help.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                       absl::Duration retry_delay);

// DEADLINE_EXCEEDED: the caller waits no longer.
absl::Status CallDeadlinePassed();

// The details of `status`; the reason is "INTERNAL" or another name of the code if none is attached.
ErrorDetails GetErrorDetails(const absl::Status& status);

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_ERROR_DETAILS_H_
