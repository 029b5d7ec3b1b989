#include "src/request/unavailable.h"

#include "absl/time/time.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"

namespace hotlora {
namespace {

// A start and a drain end by themselves. What is damaged or stuck most often needs a restart, so callers come less
// often.
constexpr absl::Duration kSoon = absl::Seconds(1);
constexpr absl::Duration kLater = absl::Seconds(10);

}  // namespace

absl::Status StartingError() {
  return MakeError(absl::StatusCode::kUnavailable, error_reason::kStarting, "the server is starting; try again shortly",
                   kSoon);
}

absl::Status DrainingError() {
  return MakeError(absl::StatusCode::kUnavailable, error_reason::kDraining, "the server is shutting down", kSoon);
}

absl::Status BaseDamagedError() {
  return MakeError(absl::StatusCode::kUnavailable, error_reason::kBaseDamaged,
                   "the model's weights are damaged in memory", kLater);
}

absl::Status WorkStuckError() {
  return MakeError(absl::StatusCode::kUnavailable, error_reason::kWorkStuck, "work on the device is stuck", kLater);
}

}  // namespace hotlora
