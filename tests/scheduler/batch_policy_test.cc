#include "src/scheduler/batch_policy.h"

#include <vector>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

constexpr bool kFits = true, kNot = false;
constexpr absl::Duration kLongestOvertaking = absl::Seconds(2);

std::optional<size_t> Choose(const std::vector<RowCandidate>& candidates) {
  return ChooseRow(candidates, kLongestOvertaking);
}

TEST(BatchPolicyTest, NobodyWantsNobodyGets) { EXPECT_EQ(Choose({}), std::nullopt); }

TEST(BatchPolicyTest, TheEarliestOfThoseWithFewestRows) {
  EXPECT_EQ(Choose({{0, 0, kFits, {}}, {0, 0, kFits, {}}}), 0u);
  EXPECT_EQ(Choose({{0, 3, kFits, {}}, {0, 1, kFits, {}}, {0, 0, kFits, {}}, {0, 0, kFits, {}}}), 2u);
}

TEST(BatchPolicyTest, PriorityCountsBeforeFairness) { EXPECT_EQ(Choose({{1, 3, kFits, {}}, {0, 0, kFits, {}}}), 0u); }

TEST(BatchPolicyTest, WhoFitsPassesWhoDoesNotForAWhile) {
  const absl::Duration just = kLongestOvertaking - absl::Nanoseconds(1);
  EXPECT_EQ(Choose({{0, 0, kNot, just}, {0, 0, kFits, {}}}), 1u);
  EXPECT_EQ(Choose({{0, 0, kNot, kLongestOvertaking}, {0, 0, kFits, {}}}), std::nullopt);
}

TEST(BatchPolicyTest, AnEarlierRequestIsNotHeldUpByALaterOneThatDoesNotFit) {
  EXPECT_EQ(Choose({{0, 3, kFits, {}}, {0, 0, kNot, absl::Hours(1)}, {0, 0, kFits, {}}}), 0u);
}

TEST(BatchPolicyTest, NobodyPassesAHigherPriority) {
  EXPECT_EQ(Choose({{1, 0, kNot, {}}, {0, 0, kFits, {}}}), std::nullopt);
  EXPECT_EQ(Choose({{1, 0, kNot, {}}, {1, 0, kFits, {}}}), 1u);
}

// A stream of requests that fit, one a step, and one that does not: it gets its turn in bounded time.
TEST(BatchPolicyTest, NobodyStarves) {
  absl::Duration now;
  bool entered_late = false;
  for (; now < 10 * kLongestOvertaking; now += absl::Milliseconds(100)) {
    const auto chosen = Choose({{0, 0, kNot, now}, {0, 0, kFits, absl::Milliseconds(100)}});
    entered_late = entered_late || (chosen.has_value() && now >= kLongestOvertaking);
  }
  EXPECT_FALSE(entered_late);
}

}  // namespace
}  // namespace hotlora
