#include "server/upload_gate.h"

#include <gtest/gtest.h>

#include "src/base/error_details.h"

namespace hotlora {
namespace {

std::string ReasonOf(const absl::Status& status) { return status.ok() ? "" : GetErrorDetails(status).reason; }

TEST(UploadGateTest, UploadsAreLimitedInAllAndForEachCaller) {
  UploadLimits limits;
  limits.most = 3;
  limits.most_of_one = 2;
  UploadGate gate(limits);
  auto a1 = gate.TryAcquire("a"), a2 = gate.TryAcquire("a");
  ASSERT_TRUE(a1.ok() && a2.ok());
  EXPECT_EQ(ReasonOf(gate.TryAcquire("a").status()), "UPLOADS_BUSY");
  auto b = gate.TryAcquire("b");
  ASSERT_TRUE(b.ok());
  EXPECT_EQ(ReasonOf(gate.TryAcquire("c").status()), "UPLOADS_BUSY");
  a1->reset();
  EXPECT_TRUE(gate.TryAcquire("a").ok());
}

TEST(UploadGateTest, FilesAndBytesOfAnHourAreLimited) {
  UploadLimits limits;
  limits.files_per_hour = 3;
  limits.bytes_per_hour = 100;
  UploadGate gate(limits);
  const absl::Time noon = absl::FromUnixSeconds(1'700'000'000);
  EXPECT_EQ(ReasonOf(gate.Charge("a", 60, noon)), "");
  EXPECT_EQ(ReasonOf(gate.Charge("a", 41, noon)), "UPLOAD_QUOTA");
  EXPECT_EQ(ReasonOf(gate.Charge("a", ~uint64_t{0}, noon)), "UPLOAD_QUOTA");
  EXPECT_EQ(ReasonOf(gate.Charge("a", 20, noon)), "");
  EXPECT_EQ(ReasonOf(gate.Charge("a", 20, noon)), "");
  const absl::Status over = gate.Charge("a", 0, noon + absl::Minutes(20));
  EXPECT_EQ(ReasonOf(over), "UPLOAD_QUOTA");
  EXPECT_EQ(GetErrorDetails(over).retry_delay, absl::Minutes(40));
  EXPECT_EQ(ReasonOf(gate.Charge("b", 60, noon)), "");
  EXPECT_EQ(ReasonOf(gate.Charge("a", 100, noon + absl::Hours(1))), "");
}

TEST(UploadGateTest, ZeroIsNoLimit) {
  UploadLimits limits;
  limits.files_per_hour = 0;
  limits.bytes_per_hour = 0;
  UploadGate gate(limits);
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_TRUE(gate.Charge("a", ~uint64_t{0} >> 1, absl::Now()).ok());
  }
}

TEST(UploadGateTest, CallersWithoutNumberAreNotRememberedForEver) {
  UploadLimits limits;
  limits.files_per_hour = 1;
  UploadGate gate(limits);
  const absl::Time noon = absl::FromUnixSeconds(1'700'000'000);
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_TRUE(gate.Charge(std::to_string(i), 1, noon).ok());
  }
  EXPECT_TRUE(gate.Charge("one more", 1, noon).ok());
  EXPECT_EQ(ReasonOf(gate.Charge("and another", 1, noon)), "UPLOAD_QUOTA") << "they share one quota now";
  EXPECT_TRUE(gate.Charge("and another", 1, noon + absl::Hours(2)).ok());
}

}  // namespace
}  // namespace hotlora
