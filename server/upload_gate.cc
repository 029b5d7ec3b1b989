#include "server/upload_gate.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"

namespace hotlora {
namespace {

constexpr absl::Duration kHour = absl::Hours(1);
// More callers than that in one hour share one quota.
constexpr size_t kMaxCallers = 10'000;

}  // namespace

absl::Status UploadGate::CheckServed() const {
  return limits_.served ? absl::OkStatus()
                        : MakeError(absl::StatusCode::kPermissionDenied, error_reason::kUploadsOff,
                                    "this server takes no uploads and deletes no adapters (--uploads off)");
}

absl::StatusOr<std::unique_ptr<UploadGate::Place>> UploadGate::Enter(const std::string& caller) {
  std::unique_ptr<Place> place = places_.Enter(caller);
  if (place == nullptr) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("at most ", places_.most_of_one(), " adapters of one caller, and ", places_.most(),
                                  " in all, are uploaded at a time"),
                     {error_reason::kUploadsBusy, {}, absl::Seconds(1)});
  }
  return place;
}

absl::Status UploadGate::Charge(const std::string& caller, uint64_t bytes, absl::Time now) {
  std::lock_guard<std::mutex> lock(mu_);
  if (hours_.size() >= kMaxCallers) {
    for (auto hour = hours_.begin(); hour != hours_.end();) {
      hour = now - hour->second.began >= kHour ? hours_.erase(hour) : std::next(hour);
    }
  }
  const bool own = hours_.size() < kMaxCallers || hours_.count(caller) > 0;
  Hour& hour = hours_.try_emplace(own ? caller : "", Hour{now}).first->second;
  if (now - hour.began >= kHour) {
    hour = Hour{now};
  }
  const bool too_many = limits_.files_per_hour > 0 && hour.files >= limits_.files_per_hour;
  const bool too_much =
      limits_.bytes_per_hour > 0 && (bytes > limits_.bytes_per_hour || hour.bytes > limits_.bytes_per_hour - bytes);
  if (too_many || too_much) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("the caller has uploaded ", hour.files, " files of ", hour.bytes,
                                  " bytes within the hour; allowed are ", limits_.files_per_hour, " files and ",
                                  limits_.bytes_per_hour, " bytes (0: any)"),
                     {error_reason::kUploadQuota, {}, hour.began + kHour - now});
  }
  ++hour.files;
  hour.bytes += bytes;
  return absl::OkStatus();
}

}  // namespace hotlora
