#include "src/request/unavailable.h"

#include <gtest/gtest.h>

#include "src/base/error_details.h"

namespace hotlora {
namespace {

TEST(UnavailableTest, EachSaysWhyAndWhenToTryAgain) {
  const struct {
    absl::Status status;
    const char* reason;
    absl::Duration retry_delay;
  } cases[] = {
      {StartingError(), "STARTING", absl::Seconds(1)},
      {DrainingError(), "DRAINING", absl::Seconds(1)},
      {BaseDamagedError(), "BASE_DAMAGED", absl::Seconds(10)},
      {WorkStuckError(), "WORK_STUCK", absl::Seconds(10)},
  };
  for (const auto& [status, reason, retry_delay] : cases) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << reason;
    EXPECT_FALSE(status.message().empty()) << reason;
    EXPECT_EQ(GetErrorDetails(status).reason, reason);
    EXPECT_EQ(GetErrorDetails(status).retry_delay, retry_delay) << reason;
  }
}

}  // namespace
}  // namespace hotlora
