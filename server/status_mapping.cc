#include "server/status_mapping.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

#include "src/base/error_details.h"

namespace hotlora {
namespace {

constexpr char kDomain[] = "hotlora";
constexpr size_t kMaxReasonBytes = 63;
// Non-ASCII text triples in the percent-encoded grpc-message; details grow by a third in base64.
constexpr size_t kMaxMessageBytes = 700;
constexpr size_t kMaxFieldBytes = 100;
constexpr size_t kMaxDescriptionBytes = 300;
constexpr size_t kMaxBadRequestBytes = 2400;

// Length of the UTF-8 character at the start of `text`, 0 if there is none.
size_t CharacterBytes(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) {
    return 1;
  }
  const size_t bytes = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : 2;
  if (byte(0) < 0xC2 || byte(0) > 0xF4 || text.size() < bytes) {
    return 0;
  }
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) {
      return 0;
    }
  }
  const bool overlong = (byte(0) == 0xE0 && byte(1) < 0xA0) || (byte(0) == 0xF0 && byte(1) < 0x90);
  const bool surrogate = byte(0) == 0xED && byte(1) > 0x9F;
  const bool too_high = byte(0) == 0xF4 && byte(1) > 0x8F;
  return overlong || surrogate || too_high ? 0 : bytes;
}

google::rpc::BadRequest ToBadRequest(const ErrorDetails& details) {
  google::rpc::BadRequest bad_request;
  size_t left = kMaxBadRequestBytes;
  size_t listed = 0;
  for (const FieldViolation& violation : details.violations) {
    const std::string field = CleanText(violation.field, kMaxFieldBytes);
    const std::string description = CleanText(violation.description, kMaxDescriptionBytes);
    const size_t bytes = field.size() + description.size() + 8;
    if (bytes > left) {
      break;
    }
    left -= bytes;
    ++listed;
    auto* added = bad_request.add_field_violations();
    added->set_field(field);
    added->set_description(description);
  }
  if (listed < details.violations.size()) {
    bad_request.add_field_violations()->set_description(
        absl::StrCat("and ", details.violations.size() - listed, " more"));
  }
  return bad_request;
}

}  // namespace

std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

std::string CleanText(absl::string_view text, size_t max_bytes) {
  constexpr absl::string_view kEllipsis = "...";
  std::string clean;
  clean.reserve(std::min(text.size(), max_bytes));
  size_t cut = 0;  // where the ellipsis would go
  while (!text.empty()) {
    const size_t bytes = CharacterBytes(text);
    const absl::string_view character = bytes == 0 ? "?" : text.substr(0, bytes);
    if (clean.size() + character.size() > max_bytes) {
      clean.resize(cut);
      absl::StrAppend(&clean, kEllipsis.substr(0, max_bytes - cut));
      return clean;
    }
    absl::StrAppend(&clean, character);
    text.remove_prefix(std::max<size_t>(bytes, 1));
    if (clean.size() + kEllipsis.size() <= max_bytes) {
      cut = clean.size();
    }
  }
  return clean;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  const ErrorDetails details = GetErrorDetails(status);
  google::rpc::Status rich;
  rich.set_code(static_cast<int>(status.code()));
  rich.set_message(CleanText(status.message(), kMaxMessageBytes));
  google::rpc::ErrorInfo info;
  info.set_reason(CleanText(details.reason, kMaxReasonBytes));
  info.set_domain(kDomain);
  rich.add_details()->PackFrom(info);
  if (!details.violations.empty()) {
    rich.add_details()->PackFrom(ToBadRequest(details));
  }
  if (details.retry_delay.has_value()) {
    google::rpc::RetryInfo retry;
    const int64_t milliseconds = absl::ToInt64Milliseconds(*details.retry_delay);
    retry.mutable_retry_delay()->set_seconds(milliseconds / 1000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(milliseconds % 1000 * 1'000'000));
    rich.add_details()->PackFrom(retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), rich.message(), rich.SerializeAsString());
}

std::optional<std::string> RetryPushback(const absl::Status& status) {
  const std::optional<absl::Duration> delay = GetErrorDetails(status).retry_delay;
  if (delay.has_value()) {
    return absl::StrCat(std::clamp<int64_t>(absl::ToInt64Milliseconds(*delay), 0, INT32_MAX));
  }
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    return "-1";
  }
  return std::nullopt;
}

}  // namespace hotlora
