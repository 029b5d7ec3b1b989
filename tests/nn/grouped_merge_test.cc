// The tables and the tiles of the CUDA launch, run on the CPU a thread at a time; and MergeWeights against MergeWeight
// on the device under test.

#include "src/nn/grouped_merge.h"

#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/nn/merge_check.h"
#include "src/tensor/device.h"
#include "tests/fakes/serial_merge.h"
#include "tests/margin.h"
#include "tests/nn/random_merge.h"

namespace hotlora {
namespace {

void RunOnCpu(const MergeTables& tables) {
  MergeSerially(tables.tasks.data(), static_cast<int>(tables.tasks.size()), tables.products.data(), tables.tiles);
}

class GroupedMergeTest : public testing::TestWithParam<std::pair<c10::ScalarType, c10::ScalarType>> {
 protected:
  static RandomMerge::Dtypes Dtypes() {
    const auto [live, clean] = GetParam();
    return {live, clean, clean};
  }

  static void ExpectMerged(const RandomMerge& merge) {
    for (size_t i = 0; i < merge.size(); ++i) {
      ExpectError(merge.ErrorOf(i), MergeTolerance(GetParam().first), "weight " + std::to_string(i));
    }
  }
};

TEST_P(GroupedMergeTest, TilesRebuildEveryWeight) {
  RandomMerge merge(c10::kCPU);
  merge.AddEnds(Dtypes());
  const std::vector<WeightToMerge> weights = merge.ToMerge();
  MergeTables tables;
  for (const WeightToMerge& weight : weights) {
    ASSERT_TRUE(AddToTables(weight, &tables));
  }
  EXPECT_EQ(tables.tasks.size(), weights.size());
  EXPECT_EQ(tables.products.size(), 11U);
  for (size_t i = 0; i < merge.size(); ++i) {
    EXPECT_FALSE(merge.ErrorOf(i) <= 1.0) << i << ", which is not merged yet";
  }
  RunOnCpu(tables);
  ExpectMerged(merge);
}

TEST_P(GroupedMergeTest, MergeWeightsRebuildsEveryWeightOnTheDevice) {
  const char* const device_name = std::getenv("HOTLORA_TEST_DEVICE");
  const c10::Device device = ResolvePlace(device_name == nullptr ? "cpu" : device_name, "float32").value().device;
  RandomMerge merge(device);
  merge.AddEnds(Dtypes());
  merge.AddDora(Dtypes());
  MergeWeights(merge.ToMerge(), DoraWeighting::kScaledChange);
  Synchronize(device);
  ExpectMerged(merge);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, GroupedMergeTest,
                         testing::Values(std::pair(at::kFloat, at::kFloat), std::pair(at::kFloat, at::kHalf),
                                         std::pair(at::kBFloat16, at::kHalf), std::pair(at::kHalf, at::kHalf),
                                         std::pair(at::kBFloat16, at::kBFloat16)),
                         [](const auto& info) {
                           return DtypeName(info.param.first) + "_from_" + DtypeName(info.param.second);
                         });

TEST(AddToTablesTest, WhatIsNoSumOfProductsIsLeft) {
  const at::Tensor live = at::zeros({8, 6}), clean = at::zeros({8, 6});
  MergeTables tables;
  const auto add = [&](const ModuleDelta& delta) {
    const std::vector<WeightedDelta> deltas = {{&delta, 1.0}};
    return AddToTables({live, clean, deltas}, &tables);
  };
  ModuleDelta full;
  full.change = FullDifference{at::zeros({8, 6})};
  EXPECT_FALSE(add(full));
  ModuleDelta dora;
  dora.change = LowRank{at::zeros({2, 6}), at::zeros({8, 2}), {}};
  EXPECT_TRUE(add(dora));
  dora.magnitude = at::ones({8, 1, 1});
  EXPECT_FALSE(add(dora));
  ModuleDelta strided;
  strided.change = LowRank{at::zeros({6, 2}).t(), at::zeros({8, 2}), {}};
  EXPECT_FALSE(add(strided));
  EXPECT_FALSE(AddToTables({live.t(), clean.t(), {}}, &tables));
  EXPECT_FALSE(AddToTables({live.to(at::kDouble), clean, {}}, &tables));
  EXPECT_EQ(tables.tasks.size(), 1U);
  EXPECT_EQ(tables.products.size(), 1U);
}

// What the server does at each start, on the tiles of the launch.
class MergeCheckTest : public testing::TestWithParam<c10::ScalarType> {
 protected:
  static void MergeByTiles(absl::Span<const WeightToMerge> weights) {
    MergeTables tables;
    for (const WeightToMerge& weight : weights) {
      ASSERT_TRUE(AddToTables(weight, &tables));
    }
    RunOnCpu(tables);
  }
  static std::optional<std::string> Find(absl::FunctionRef<void(absl::Span<const WeightToMerge>)> merge) {
    return FindMergeFault(c10::Device(c10::kCPU), GetParam(), merge);
  }
};

TEST_P(MergeCheckTest, FindsNothingWrongWithTheKernelsTilesAndWithTheCpus) {
  EXPECT_EQ(Find(MergeByTiles), std::nullopt);
  EXPECT_EQ(Find([](auto weights) { MergeWeights(weights, DoraWeighting::kScaledChange); }), std::nullopt);
}

TEST_P(MergeCheckTest, FindsAnElementThatIsWrongInAnyWeight) {
  for (size_t wrong = 0; wrong < 15; ++wrong) {
    const auto fault = Find([&](absl::Span<const WeightToMerge> weights) {
      ASSERT_EQ(weights.size(), 15U);
      MergeByTiles(weights);
      at::Tensor element = weights[wrong].live;
      while (element.dim() > 0) {
        element = element.select(0, -1);
      }
      element.add_(8.0);
    });
    EXPECT_THAT(fault.value_or(""), testing::HasSubstr("is off by ")) << wrong;
  }
}

TEST_P(MergeCheckTest, FindsAMergeThatLeavesWeightsAsTheyWere) {
  EXPECT_THAT(Find([](auto) {}).value_or(""), testing::HasSubstr("a weight of [130, 70]"));
}

INSTANTIATE_TEST_SUITE_P(OfDtypes, MergeCheckTest, testing::Values(at::kFloat, at::kHalf, at::kBFloat16));

}  // namespace
}  // namespace hotlora
