#include "src/scheduler/cost_book.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

constexpr uint32_t kSize = 64;

StepKind Kind(uint32_t network_rows, bool side = false) { return {kSize, kSize, network_rows, side}; }

// So many images under guidance, merged.
std::vector<RowWork> Images(size_t count) { return std::vector<RowWork>(count, RowWork{2, false}); }

SwapReport Merged(double restore_seconds, double apply_seconds) {
  SwapReport report;
  report.changed = true;
  report.restore_seconds = restore_seconds;
  report.apply_seconds = apply_seconds;
  report.modules_merged = 3;
  return report;
}

// As many as it takes until the cost is known.
void AddSteps(CostBook& costs, const StepKind& kind, double seconds) {
  for (size_t i = 0; i < CostBook::kLeastSteps; ++i) {
    costs.AddStep(kind, seconds);
  }
}

TEST(StepsBeforeMergingTest, IsWhereLossesReachTheMerge) {
  const struct {
    std::string what;
    double merged_step, side_step, merge;
    uint32_t expected;
  } kCases[] = {
      {"a step loses a tenth of the merge", 1.0, 1.25, 2.5, 10},
      {"a part of a step counts as one", 1.0, 1.25, 2.6, 11},
      {"a merge that is nearly free still waits for a step", 1.0, 1.5, 1e-6, 1},
      {"a side branch that costs nothing", 1.0, 1.0, 2.0, CostBook::kMostStepsBeforeMerging},
      {"a side branch that is faster by chance", 1.0, 0.9, 2.0, CostBook::kMostStepsBeforeMerging},
      {"a merge that takes very long", 1.0, 1.01, 60.0, CostBook::kMostStepsBeforeMerging},
  };
  for (const auto& each : kCases) {
    CostBook costs;
    AddSteps(costs, Kind(2), each.merged_step);
    AddSteps(costs, Kind(2, /*side=*/true), each.side_step);
    costs.AddApply(Merged(0.25 * each.merge, 0.75 * each.merge), ApplyMode::kMerged);
    EXPECT_EQ(costs.StepsBeforeMerging(kSize, kSize, Images(1)), each.expected) << each.what;
    EXPECT_EQ(costs.Report().steps_before_merging, each.expected) << each.what;
  }
}

TEST(StepsBeforeMergingTest, IsTheDefaultAsLongAsAFigureIsMissing) {
  for (const int missing : {0, 1, 2}) {
    CostBook costs;
    if (missing != 0) {
      AddSteps(costs, Kind(2), 1.0);
    }
    if (missing != 1) {
      AddSteps(costs, Kind(2, /*side=*/true), 1.5);
    }
    if (missing != 2) {
      costs.AddApply(Merged(0.0, 1.0), ApplyMode::kMerged);
    }
    // Neither of these is a merge.
    costs.AddApply(Merged(0.0, 1.0), ApplyMode::kSide);
    costs.AddApply(SwapReport{}, ApplyMode::kMerged);
    EXPECT_EQ(costs.StepsBeforeMerging(kSize, kSize, Images(1)), CostBook::kDefaultStepsBeforeMerging) << missing;
  }
}

TEST(StepsBeforeMergingTest, LooksAtStepsOfTheSameSizeAndRows) {
  CostBook costs;
  AddSteps(costs, Kind(2), 1.0);
  AddSteps(costs, Kind(2, /*side=*/true), 1.5);
  costs.AddApply(Merged(0.0, 1.0), ApplyMode::kMerged);
  EXPECT_EQ(costs.StepsBeforeMerging(kSize, kSize, Images(1)), 2u);
  EXPECT_EQ(costs.StepsBeforeMerging(kSize, kSize, Images(2)), CostBook::kDefaultStepsBeforeMerging);
  EXPECT_EQ(costs.StepsBeforeMerging(2 * kSize, kSize, Images(1)), CostBook::kDefaultStepsBeforeMerging);
}

TEST(RowsPerCallTest, IsWhatTakesTheLeastTime) {
  const struct {
    std::string what;
    std::vector<double> seconds;  // of a call of 1, 2, ... images; 0: not known
    size_t images, expected;
  } kCases[] = {
      {"nothing is known", {0, 0, 0, 0}, 4, 4},
      {"a call of all is not known, so it is tried", {1.0, 2.5, 4.0, 0}, 4, 4},
      {"calls of fewer are not known", {0, 0, 0, 9.0}, 4, 4},
      {"a batch is faster", {1.0, 1.8, 2.6, 3.4}, 4, 4},
      {"as fast in turns", {1.0, 2.0, 3.0, 4.0}, 4, 4},
      {"faster in turns, but hardly", {1.0, 2.0, 3.0, 5.0}, 4, 4},
      {"faster in turns", {1.0, 2.5, 4.0, 6.0}, 4, 1},
      {"faster by too little time", {1e-4, 3e-4, 5e-4, 9e-4}, 4, 4},
      {"two at a time are fastest", {1.0, 1.5, 3.5, 4.5}, 4, 2},
      {"the last call has what is left", {1.0, 1.5, 4.0}, 3, 2},
      {"one image", {1.0}, 1, 1},
  };
  for (const auto& each : kCases) {
    CostBook costs;
    for (size_t i = 0; i < each.seconds.size(); ++i) {
      if (each.seconds[i] > 0.0) {
        AddSteps(costs, Kind(2 * static_cast<uint32_t>(i + 1)), each.seconds[i]);
      }
    }
    EXPECT_EQ(costs.RowsPerCall(kSize, kSize, Images(each.images)), each.expected) << each.what;
    EXPECT_EQ(costs.Report().taking_turns, each.expected < each.images) << each.what;
  }
}

TEST(RowsPerCallTest, TurnsGoOnUntilABatchIsAsFast) {
  CostBook costs;
  const auto add = [&costs](double one, double two) {
    for (size_t i = 0; i < CostBook::kKept; ++i) {
      costs.AddStep(Kind(2), one);
      costs.AddStep(Kind(4), two);
    }
  };
  add(1.0, 2.05);
  EXPECT_EQ(costs.RowsPerCall(kSize, kSize, Images(2)), 2u) << "the gain is too small to begin";
  add(1.0, 3.0);
  EXPECT_EQ(costs.RowsPerCall(kSize, kSize, Images(2)), 1u);
  add(1.0, 2.05);
  EXPECT_EQ(costs.RowsPerCall(kSize, kSize, Images(2)), 1u) << "and large enough to go on";
  add(1.0, 2.0);
  EXPECT_EQ(costs.RowsPerCall(kSize, kSize, Images(2)), 2u);
}

TEST(RowsPerCallTest, RowsBesideTheWeightsHaveCostsOfTheirOwn) {
  CostBook costs;
  AddSteps(costs, Kind(2), 1.0);
  AddSteps(costs, Kind(1, /*side=*/true), 1.0);
  AddSteps(costs, Kind(3, /*side=*/true), 3.0);
  const std::vector<RowWork> rows = {{2, false}, {1, true}};
  EXPECT_EQ(costs.RowsPerCall(kSize, kSize, rows), 1u);
  EXPECT_EQ(costs.RowsPerCall(2 * kSize, kSize, rows), 2u) << "another size";
}

TEST(RowsPerCallTest, WhatWasNotSeenForLongIsTriedAgain) {
  CostBook costs;
  AddSteps(costs, Kind(4), 3.0);
  for (uint64_t i = 0; i < CostBook::kFreshSteps; ++i) {
    costs.AddStep(Kind(2), 1.0);
  }
  EXPECT_EQ(costs.RowsPerCall(kSize, kSize, Images(2)), 1u);
  costs.AddStep(Kind(2), 1.0);
  EXPECT_EQ(costs.RowsPerCall(kSize, kSize, Images(2)), 2u);
}

TEST(CostBookTest, AMedianOfTheLastOnesCounts) {
  CostBook costs;
  for (const double seconds : {9.0, 1.0, 1.0, 1.0, 5.0}) {
    costs.AddSwap({AdapterTier::kDisk, /*merged=*/false}, seconds);
  }
  for (size_t i = 0; i < CostBook::kKept; ++i) {
    costs.AddSwap({AdapterTier::kHost, /*merged=*/false}, 1.0);
  }
  for (size_t i = 0; i < CostBook::kKept; ++i) {
    costs.AddSwap({AdapterTier::kHost, /*merged=*/false}, 2.0);
  }
  const CostReport report = costs.Report();
  ASSERT_EQ(report.swaps.size(), 2u);
  EXPECT_EQ(report.swaps[0].kind.found, AdapterTier::kDisk);
  EXPECT_EQ(report.swaps[0].seconds, 1.0);
  EXPECT_EQ(report.swaps[0].count, 5u);
  EXPECT_EQ(report.swaps[1].seconds, 2.0);
  EXPECT_EQ(report.swaps[1].count, 2 * CostBook::kKept);
}

TEST(CostBookTest, TheKindThatWasSeenLongestAgoIsForgotten) {
  CostBook costs;
  costs.AddStep(Kind(1), 1.0);
  for (uint32_t rows = 2; rows <= CostBook::kKinds + 1; ++rows) {
    costs.AddStep(Kind(rows), 1.0);
    costs.AddStep(Kind(2), 1.0);
  }
  const CostReport report = costs.Report();
  EXPECT_EQ(report.steps.size(), CostBook::kKinds);
  EXPECT_EQ(report.steps.front().kind.network_rows, 2u);
}

}  // namespace
}  // namespace hotlora
