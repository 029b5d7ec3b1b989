#ifndef HOTLORA_SERVER_UPLOAD_GATE_H_
#define HOTLORA_SERVER_UPLOAD_GATE_H_

// Who may upload adapters, how many at a time, and how much.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "server/caller_limiter.h"
#include "server/caller_table.h"
#include "src/base/mutex.h"

namespace hotlora {

struct UploadLimits {
  bool served = true;  // --uploads: whether UploadAdapter and DeleteAdapter are

  int most = 8;         // uploads under way at one time,
  int most_of_one = 4;  // and of one caller

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
  // Counts as an upload under way. It must not outlive the gate.
  using Permit = CallerLimiter::Permit;

  explicit UploadGate(const UploadLimits& limits);

  const UploadLimits& limits() const { return limits_; }

  // PermissionDenied (UPLOADS_OFF) if uploads are not served.
  absl::Status CheckServed() const;

  // ResourceExhausted (UPLOADS_BUSY, with a retry delay) if as many uploads as may be are under way.
  absl::StatusOr<std::unique_ptr<Permit>> TryAcquire(const std::string& caller);

  // Counts a file of that size. ResourceExhausted (UPLOAD_QUOTA), with the time until the caller's hour is over as the
  // retry delay, if that is more than the caller may upload; it is not counted then.
  absl::Status Charge(const std::string& caller, uint64_t bytes, absl::Time now);

 private:
  // What a caller began to upload in the hour that began then.
  struct Hour {
    absl::Time began = absl::InfinitePast();
    uint64_t files = 0, bytes = 0;
  };

  const UploadLimits limits_;
  CallerLimiter uploads_;
  Mutex mu_;
  CallerTable<Hour> hours_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_UPLOAD_GATE_H_
