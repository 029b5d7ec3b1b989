#include "src/scheduler/apply_mode_chooser.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

using Sets = std::vector<std::string>;

constexpr uint32_t kStepsBeforeMerging = 8;
constexpr bool kAnotherIsReady = true, kNoOtherIsReady = false;

// Steps of one set alone, after which the mode may change.
void StepAlone(ApplyModeChooser& chooser, uint32_t steps) {
  for (uint32_t i = 0; i < steps; ++i) {
    EXPECT_FALSE(chooser.BeforeStep(Sets{"a"}, kStepsBeforeMerging)) << "step " << i;
  }
}

// Two sets that have rows, in side mode.
ApplyModeChooser Mixed() {
  ApplyModeChooser chooser(ApplyPolicy::kAuto);
  chooser.BeforeRow({}, "a", kNoOtherIsReady);
  EXPECT_TRUE(chooser.BeforeRow(Sets{"a"}, "b", kNoOtherIsReady));
  EXPECT_EQ(chooser.mode(), ApplyMode::kSide);
  chooser.BeforeStep(Sets{"a", "b"}, kStepsBeforeMerging);
  return chooser;
}

TEST(ApplyModeChooserTest, OneSetAloneIsMerged) {
  ApplyModeChooser chooser(ApplyPolicy::kAuto);
  EXPECT_FALSE(chooser.BeforeRow({}, "a", kNoOtherIsReady));
  EXPECT_FALSE(chooser.BeforeRow(Sets{"a"}, "a", kNoOtherIsReady)) << "a second image of it";
  StepAlone(chooser, 3 * kStepsBeforeMerging);
  EXPECT_EQ(chooser.mode(), ApplyMode::kMerged);
}

TEST(ApplyModeChooserTest, ASecondSetThatJoinsTurnsToSideBranches) {
  ApplyModeChooser chooser(ApplyPolicy::kAuto);
  chooser.BeforeRow({}, "a", kNoOtherIsReady);
  StepAlone(chooser, 1);
  EXPECT_TRUE(chooser.BeforeRow(Sets{"a"}, "b", kNoOtherIsReady));
  EXPECT_EQ(chooser.mode(), ApplyMode::kSide);
}

TEST(ApplyModeChooserTest, ASecondSetThatIsReadyCountsOnlyIfNothingRuns) {
  ApplyModeChooser chooser(ApplyPolicy::kAuto);
  EXPECT_TRUE(chooser.BeforeRow({}, "a", kAnotherIsReady));
  EXPECT_EQ(chooser.mode(), ApplyMode::kSide);
  ApplyModeChooser later(ApplyPolicy::kAuto);
  EXPECT_FALSE(later.BeforeRow(Sets{"a"}, "a", kAnotherIsReady));
  EXPECT_EQ(later.mode(), ApplyMode::kMerged);
}

TEST(ApplyModeChooserTest, TheSetThatIsLeftIsMergedAfterSomeSteps) {
  ApplyModeChooser chooser = Mixed();
  StepAlone(chooser, kStepsBeforeMerging);
  EXPECT_EQ(chooser.mode(), ApplyMode::kSide);
  EXPECT_TRUE(chooser.BeforeStep(Sets{"a"}, kStepsBeforeMerging));
  EXPECT_EQ(chooser.mode(), ApplyMode::kMerged);
}

TEST(ApplyModeChooserTest, TheStepsBeforeMergingMayChangeOnTheWay) {
  ApplyModeChooser chooser = Mixed();
  StepAlone(chooser, 3);
  EXPECT_FALSE(chooser.BeforeStep(Sets{"a"}, 4)) << "three steps were";
  EXPECT_TRUE(chooser.BeforeStep(Sets{"a"}, 4));
  EXPECT_EQ(chooser.mode(), ApplyMode::kMerged);
}

TEST(ApplyModeChooserTest, ABreakBeginsTheCountAgain) {
  ApplyModeChooser chooser = Mixed();
  StepAlone(chooser, kStepsBeforeMerging);
  EXPECT_FALSE(chooser.BeforeRow(Sets{"a"}, "b", kNoOtherIsReady));
  EXPECT_FALSE(chooser.BeforeStep(Sets{"a", "b"}, kStepsBeforeMerging));
  StepAlone(chooser, kStepsBeforeMerging);
  EXPECT_EQ(chooser.mode(), ApplyMode::kSide);
  EXPECT_TRUE(chooser.BeforeStep(Sets{"a"}, kStepsBeforeMerging));
}

TEST(ApplyModeChooserTest, AnIdleDeviceMergesAtOnce) {
  ApplyModeChooser chooser = Mixed();
  EXPECT_TRUE(chooser.BeforeRow({}, "a", kNoOtherIsReady));
  EXPECT_EQ(chooser.mode(), ApplyMode::kMerged);
}

TEST(ApplyModeChooserTest, AFixedPolicyNeverChanges) {
  for (const ApplyPolicy policy : {ApplyPolicy::kMerged, ApplyPolicy::kSide}) {
    ApplyModeChooser chooser(policy);
    const ApplyMode mode = policy == ApplyPolicy::kSide ? ApplyMode::kSide : ApplyMode::kMerged;
    EXPECT_EQ(chooser.mode(), mode);
    EXPECT_FALSE(chooser.BeforeRow({}, "a", kAnotherIsReady));
    EXPECT_FALSE(chooser.BeforeRow(Sets{"a"}, "b", kNoOtherIsReady));
    StepAlone(chooser, 2 * kStepsBeforeMerging);
    EXPECT_EQ(chooser.mode(), mode);
  }
}

}  // namespace
}  // namespace hotlora
