#include "src/metrics/step_drift.h"

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

constexpr StepShape kSmall{64, 64, 1, 1}, kLarge{1024, 1024, 1, 1}, kBatch{1024, 1024, 4, 4};

// So many steps of a shape, each of so many seconds.
struct Steps {
  StepShape shape;
  double seconds;
  int count;
};

struct Case {
  std::string name;
  std::vector<std::pair<StepShape, double>> warm_up;
  std::vector<Steps> steps;
  double ratio;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class StepDriftTest : public testing::TestWithParam<Case> {};

TEST_P(StepDriftTest, RatioOfMedians) {
  StepDrift drift;
  for (const auto& [shape, seconds] : GetParam().warm_up) {
    drift.SetWarmUp(shape, seconds);
  }
  for (const Steps& steps : GetParam().steps) {
    for (int i = 0; i < steps.count; ++i) {
      drift.Add(steps.shape, steps.seconds);
    }
  }
  ASSERT_TRUE(drift.ratio().has_value());
  EXPECT_NEAR(*drift.ratio(), GetParam().ratio, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, StepDriftTest,
    testing::Values(
        Case{"WarmUpUntilThereAreEnoughSteps", {{kSmall, 0.1}}, {{kSmall, 0.2, 31}}, 2.0},
        // Another process had the machine during warm-up: a step that is twice as slow later must show as 2.
        Case{"ABusyWarmUpIsForgotten", {{kSmall, 0.17}}, {{kSmall, 0.1, 32}}, 1.0},
        Case{"ABusyWarmUpHidesNoDrift", {{kSmall, 0.17}}, {{kSmall, 0.1, 32}, {kSmall, 0.2, 16}}, 2.0},
        Case{"ServedShapesNeedNoWarmUp", {}, {{kLarge, 3.0, 32}, {kLarge, 4.5, 16}}, 1.5},
        Case{"AFewSlowStepsAtFirstAreNoBaseline", {}, {{kSmall, 9.0, 15}, {kSmall, 0.1, 17 + 16}}, 1.0},
        Case{"AFewSlowStepsAreNoDrift", {}, {{kSmall, 0.1, 40}, {kSmall, 9.0, 7}}, 1.0},
        Case{"ItComesBack", {}, {{kSmall, 0.1, 32}, {kSmall, 0.5, 100}, {kSmall, 0.1, 16}}, 1.0},
        Case{"MixedLoadIsNoDrift", {{kSmall, 0.1}}, {{kSmall, 0.1, 40}, {kLarge, 3.0, 40}, {kBatch, 11.0, 40}}, 1.0},
        Case{"OfTwoShapesInTurnOneIsSlow",
             {},
             {{kSmall, 0.1, 32}, {kLarge, 3.0, 32}, {kSmall, 0.1, 16}, {kLarge, 9.0, 16}},
             2.0},
        Case{"AShapeWithoutABaselineDoesNotCount", {{kSmall, 0.1}}, {{kSmall, 0.1, 16}, {kLarge, 3.0, 16}}, 1.0}),
    [](const auto& info) { return info.param.name; });

TEST(StepDriftShapeTest, OnlyLikeStepsAreCompared) {
  const StepShape guided{64, 64, 2, 2}, half{64, 64, 2, 1}, beside{64, 64, 2, 2, 1}, two_beside{64, 64, 2, 2, 2};
  StepDrift drift;
  double seconds = 0.1;
  for (const StepShape& shape : {guided, half, beside, two_beside}) {
    for (size_t i = 0; i < StepDrift::kBaselineSteps; ++i) {
      drift.Add(shape, seconds);
    }
    EXPECT_NEAR(*drift.ratio(), 1.0, 1e-9) << seconds;
    seconds *= 2;
  }
  EXPECT_TRUE(guided.plain());
  EXPECT_TRUE((StepShape{64, 64, 2, 0}.plain()));
  EXPECT_FALSE(half.plain());
  EXPECT_FALSE(beside.plain());
}

TEST(StepDriftShapeTest, NothingIsSaidBeforeThereIsABaseline) {
  StepDrift drift;
  EXPECT_EQ(drift.ratio(), std::nullopt);
  drift.SetWarmUp(kSmall, 0.1);
  EXPECT_EQ(drift.ratio(), std::nullopt);
  for (size_t i = 1; i < StepDrift::kBaselineSteps; ++i) {
    EXPECT_EQ(drift.Add(kLarge, 3.0).baseline, std::nullopt);
    EXPECT_EQ(drift.ratio(), std::nullopt);
  }
  EXPECT_EQ(drift.Add(kLarge, 3.0).baseline, 3.0);
  EXPECT_EQ(drift.ratio(), 1.0);
}

TEST(StepDriftShapeTest, WarmUpComesTooLateForAShapeThatIsKnown) {
  StepDrift drift;
  for (size_t i = 0; i < StepDrift::kBaselineSteps; ++i) {
    drift.Add(kSmall, 0.1);
  }
  EXPECT_EQ(drift.SetWarmUp(kSmall, 5.0).baseline, std::nullopt);
  EXPECT_EQ(drift.ratio(), 1.0);
}

TEST(StepDriftShapeTest, TheLeastRecentlyUsedShapeIsForgotten) {
  StepDrift drift;
  const auto shape = [](size_t i) { return StepShape{static_cast<uint32_t>(64 + 8 * i), 64, 1, 1}; };
  for (size_t i = 0; i < StepDrift::kShapes; ++i) {
    EXPECT_EQ(drift.SetWarmUp(shape(i), 0.1).dropped, std::nullopt);
  }
  drift.Add(shape(0), 0.1);
  const StepDrift::Change change = drift.Add(shape(StepDrift::kShapes), 0.1);
  ASSERT_TRUE(change.dropped.has_value());
  EXPECT_TRUE(*change.dropped == shape(1));
  // What is forgotten begins again, without a baseline.
  drift.Add(shape(1), 77.0);
  EXPECT_EQ(drift.ratio(), 1.0);
}

}  // namespace
}  // namespace hotlora
