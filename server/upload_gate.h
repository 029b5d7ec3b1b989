#ifndef HOTLORA_SERVER_UPLOAD_GATE_H_
#define HOTLORA_SERVER_UPLOAD_GATE_H_

// Who may upload adapters, how many at a time, and how much.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "server/caller_places.h"

namespace hotlora {

struct UploadLimits {
  bool served = true;  // --uploads: whether UploadAdapter and DeleteAdapter are

  int places = 8;             // uploads under way at one time,
  int places_per_caller = 4;  // and of one caller

  // How long an upload may bring no byte, and how long it may take in all.
  absl::Duration silence = absl::Seconds(10);
  absl::Duration longest = absl::Hours(1);

  // What one caller may send within an hour, whether it ends well or not; 0 for no limit. Uploads that the header alone
  // has refused do not count.
  uint32_t files_per_hour = 1000;
  uint64_t bytes_per_hour = uint64_t{256} << 30;
};

// Thread-safe. A caller is a token, or else a peer address (RpcCall::caller).
class UploadGate {
 public:
  // A place among the uploads under way. It must not outlive the gate.
  using Place = CallerPlaces::Place;

  explicit UploadGate(const UploadLimits& limits) : limits_(limits), places_(limits.places, limits.places_per_caller) {}

  const UploadLimits& limits() const { return limits_; }

  // PermissionDenied (UPLOADS_OFF) if uploads are not served.
  absl::Status CheckServed() const;

  // ResourceExhausted (UPLOADS_BUSY, with a retry delay) if no place is free.
  absl::StatusOr<std::unique_ptr<Place>> Enter(const std::string& caller);

  // Counts a file of that size. ResourceExhausted (UPLOAD_QUOTA), with the time until the caller's hour is over as the
  // retry delay, if that is more than the caller may upload; it is not counted then.
  absl::Status Charge(const std::string& caller, uint64_t bytes, absl::Time now);

 private:
  // What a caller began to upload in the hour that began then.
  struct Hour {
    absl::Time began;
    uint64_t files = 0, bytes = 0;
  };

  const UploadLimits limits_;
  CallerPlaces places_;
  std::mutex mu_;
  std::map<std::string, Hour> hours_;  // guarded by mu_; at most kMaxCallers
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_UPLOAD_GATE_H_
