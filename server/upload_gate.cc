#include "server/upload_gate.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"

namespace hotlora {
namespace {

constexpr absl::Duration kHour = absl::Hours(1);
// More callers than that in one hour share one quota.
constexpr size_t kMaxCallers = 10'000;

absl::Status Busy(absl::string_view what) {
  return MakeError(absl::StatusCode::kResourceExhausted, what, {"UPLOADS_BUSY", {}, absl::Seconds(1)});
}

}  // namespace

absl::Status UploadGate::CheckServed() const {
  return limits_.served ? absl::OkStatus()
                        : MakeError(absl::StatusCode::kPermissionDenied, "UPLOADS_OFF",
                                    "this server takes no uploads and deletes no adapters (--uploads off)");
}

absl::StatusOr<std::unique_ptr<UploadGate::Place>> UploadGate::Enter(const std::string& caller) {
  std::lock_guard<std::mutex> lock(mu_);
  if (under_way_ >= limits_.places) {
    return Busy(absl::StrCat(under_way_, " adapters are being uploaded; more are not taken at a time"));
  }
  int& own = under_way_of_[caller];
  if (own >= limits_.places_per_caller) {
    return Busy(absl::StrCat("the caller uploads ", own, " adapters already; more are not taken at a time"));
  }
  ++own;
  ++under_way_;
  return std::make_unique<Place>(this, caller);
}

void UploadGate::Leave(const std::string& caller) {
  std::lock_guard<std::mutex> lock(mu_);
  --under_way_;
  const auto own = under_way_of_.find(caller);
  if (--own->second == 0) {
    under_way_of_.erase(own);
  }
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
                     {"UPLOAD_QUOTA", {}, hour.began + kHour - now});
  }
  ++hour.files;
  hour.bytes += bytes;
  return absl::OkStatus();
}

}  // namespace hotlora
