#ifndef HOTLORA_SERVER_STATUS_MAPPING_H_
#define HOTLORA_SERVER_STATUS_MAPPING_H_

// absl::Status to gRPC, the only place. Every error carries google.rpc.ErrorInfo {reason, domain
// "hotlora"}; BadRequest with the bad fields and RetryInfo if the status has them
// (src/base/error_details.h).
//
// Trailers share one limit, 8 KiB in most callers, and a caller that gets more sees none of it:
// texts are cut, and violations beyond what fits are counted in a last one.

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <grpcpp/support/status.h>

namespace hotlora {

// "INVALID_ARGUMENT", "OK": the label `code`, and what the client prints.
std::string CodeName(absl::StatusCode code);

grpc::Status ToGrpcStatus(const absl::Status& status);

// The trailer grpc-retry-pushback-ms (gRFC A6), which a caller's retry policy obeys: the delay
// if trying again helps, "-1" if a retry of a full or failed resource would be in vain, none
// for codes that clients do not retry.
std::optional<std::string> RetryPushback(const absl::Status& status);

// `text` with every byte that is not UTF-8 as '?', cut between characters to at most `max_bytes`
// ("..." at the end then). Protobuf strings must be UTF-8, and names from files may be anything.
std::string CleanText(absl::string_view text, size_t max_bytes = std::string::npos);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_STATUS_MAPPING_H_
