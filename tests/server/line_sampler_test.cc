#include "server/line_sampler.h"

#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(LineSamplerTest, TakesTenASecondAndTellsHowManyItLeftOut) {
  LineSampler sampler;
  const absl::Time start = absl::FromUnixSeconds(1000);
  for (int i = 0; i < LineSampler::kPerSecond; ++i) {
    EXPECT_EQ(sampler.Take(start + absl::Milliseconds(i)), 0u);
  }
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(sampler.Take(start + absl::Milliseconds(500)), std::nullopt);
  }
  EXPECT_EQ(sampler.Take(start + absl::Seconds(1)), 1000u);
  EXPECT_EQ(sampler.Take(start + absl::Seconds(1)), 0u);
}

TEST(LineSamplerTest, AClockThatIsSetBackSilencesNothing) {
  LineSampler sampler;
  const absl::Time start = absl::FromUnixSeconds(1'000'000);
  for (int i = 0; i < 2 * LineSampler::kPerSecond; ++i) {
    sampler.Take(start);
  }
  EXPECT_EQ(sampler.Take(start - absl::Hours(1)), uint64_t{LineSampler::kPerSecond});
}

}  // namespace
}  // namespace hotlora
