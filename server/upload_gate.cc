#include "server/upload_gate.h"

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"

namespace hotlora {
namespace {

constexpr absl::Duration kHour = absl::Hours(1);
// More callers than that in one hour share one quota.
constexpr size_t kMaxCallers = 10'000;

}  // namespace

UploadGate::UploadGate(const UploadLimits& limits)
    : limits_(limits), uploads_(limits.most, limits.most_of_one), hours_(kMaxCallers) {}

absl::Status UploadGate::CheckServed() const {
  return limits_.served ? absl::OkStatus()
                        : MakeError(absl::StatusCode::kPermissionDenied, error_reason::kUploadsOff,
                                    "this server takes no uploads and deletes no adapters (--uploads off)");
}

absl::StatusOr<std::unique_ptr<UploadGate::Permit>> UploadGate::TryAcquire(const std::string& caller) {
  std::unique_ptr<Permit> permit = uploads_.TryAcquire(caller);
  if (permit == nullptr) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kUploadsBusy,
                     absl::StrCat("at most ", uploads_.most_of_one(), " adapters of one caller, and ", uploads_.most(),
                                  " in all, are uploaded at a time"),
                     absl::Seconds(1));
  }
  return permit;
}

absl::Status UploadGate::Charge(const std::string& caller, uint64_t bytes, absl::Time now) {
  MutexLock lock(&mu_);
  if (hours_.full()) {
    hours_.EraseIf([now](const Hour& hour) { return now - hour.began >= kHour; });
  }
  Hour& hour = hours_.Of(caller);
  if (now - hour.began >= kHour) {
    hour = Hour{now};
  }
  const bool too_many = limits_.files_per_hour > 0 && hour.files >= limits_.files_per_hour;
  const bool too_much =
      limits_.bytes_per_hour > 0 && (bytes > limits_.bytes_per_hour || hour.bytes > limits_.bytes_per_hour - bytes);
  if (too_many || too_much) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kUploadQuota,
                     absl::StrCat("the caller has uploaded ", hour.files, " files of ", hour.bytes,
                                  " bytes within the hour; allowed are ", limits_.files_per_hour, " files and ",
                                  limits_.bytes_per_hour, " bytes (0: any)"),
                     hour.began + kHour - now);
  }
  ++hour.files;
  hour.bytes += bytes;
  return absl::OkStatus();
}

}  // namespace hotlora
