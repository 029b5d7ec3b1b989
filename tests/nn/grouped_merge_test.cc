// The tables and the tiles of the CUDA launch, run on the CPU a thread at a time; and MergeWeights against MergeWeight
// on the device under test.

#include "src/nn/grouped_merge.h"

#include <cmath>
#include <cstdlib>
#include <deque>
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

namespace hotlora {
namespace {

void RunOnCpu(const MergeTables& tables) {
  MergeSerially(tables.tasks.data(), static_cast<int>(tables.tasks.size()), tables.products.data(), tables.tiles);
}

class GroupedMergeTest : public testing::TestWithParam<std::pair<c10::ScalarType, c10::ScalarType>> {
 protected:
  struct Weight {
    at::Tensor live, clean;
    std::vector<ModuleDelta> deltas;
    std::vector<WeightedDelta> weighted;
  };

  at::Tensor Random(at::IntArrayRef shape, c10::ScalarType dtype) {
    return at::randn(shape, generator_, at::TensorOptions(at::kFloat)).to(device_, dtype);
  }

  // A weight of that shape with a product of each rank.
  void Add(std::vector<int64_t> shape, std::vector<int64_t> ranks, c10::ScalarType factors) {
    const auto [live, clean] = GetParam();
    Weight& weight = weights_.emplace_back();
    weight.clean = Random(shape, clean);
    const auto format = shape.size() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    weight.live = at::full(shape, NAN, at::TensorOptions(device_).dtype(live)).contiguous(format);
    const int64_t columns = weight.clean.numel() / shape[0];
    for (const int64_t rank : ranks) {
      ModuleDelta& delta = weight.deltas.emplace_back();
      delta.change = LowRank{Random({rank, columns}, factors), Random({shape[0], rank}, factors), {}};
      delta.scale = 0.5;
    }
    double strength = 0.75;
    for (const ModuleDelta& delta : weight.deltas) {
      weight.weighted.push_back({&delta, strength});
      strength = -0.25;
    }
  }

  // Ends of tiles in every direction, windows, no product, several, and one of weight 0.
  void AddAll() {
    const auto [live, clean] = GetParam();
    Add({64, 64}, {16}, clean);
    Add({130, 70}, {8, 24}, clean);
    Add({3, 200}, {}, clean);
    Add({65, 1}, {40}, at::kFloat);
    Add({20, 12, 3, 3}, {8}, clean);
    Add({70, 36, 1, 1}, {8, 8, 72}, at::kHalf);
    Add({48, 32}, {8, 8}, clean);
    weights_.back().weighted[1].weight = 0.0;
    Add({96, 128}, {8}, at::kBFloat16);
  }

  at::Tensor Expected(const Weight& weight) {
    at::Tensor live = at::empty_like(weight.live);
    MergeWeight(live, weight.clean, weight.weighted);
    return live;
  }

  void ExpectMerged() {
    for (size_t i = 0; i < weights_.size(); ++i) {
      const at::Tensor expected = Expected(weights_[i]).to(at::kFloat), got = weights_[i].live.to(at::kFloat);
      // One rounding to live's dtype, of sums that were rounded in another order.
      const double tolerance = GetParam().first == at::kFloat ? 2e-5 : GetParam().first == at::kHalf ? 2e-3 : 1.6e-2;
      EXPECT_TRUE(at::allclose(got, expected, tolerance, tolerance)) << i << ": " << (got - expected).abs().max();
      if (weights_[i].deltas.empty()) {
        EXPECT_TRUE(at::equal(got, expected)) << i;
      }
    }
  }

  c10::Device device_{c10::kCPU};
  at::Generator generator_ = at::make_generator<at::CPUGeneratorImpl>(11);
  std::deque<Weight> weights_;  // stays where it is: `weighted` points into it
};

TEST_P(GroupedMergeTest, TilesRebuildEveryWeight) {
  AddAll();
  MergeTables tables;
  for (Weight& weight : weights_) {
    ASSERT_TRUE(AddToTables({weight.live, weight.clean, weight.weighted}, &tables));
  }
  EXPECT_EQ(tables.tasks.size(), weights_.size());
  EXPECT_EQ(tables.products.size(), 10U);
  RunOnCpu(tables);
  ExpectMerged();
}

TEST_P(GroupedMergeTest, MergeWeightsRebuildsEveryWeightOnTheDevice) {
  const char* const device = std::getenv("HOTLORA_TEST_DEVICE");
  device_ = ResolvePlace(device == nullptr ? "cpu" : device, "float32").value().device;
  AddAll();
  // And one that is not a sum of products.
  Add({40, 24}, {8}, at::kFloat);
  weights_.back().deltas[0].magnitude = at::rand({40, 1, 1}, generator_, at::TensorOptions(at::kFloat)).to(device_);
  std::vector<WeightToMerge> merges;
  for (Weight& weight : weights_) {
    merges.push_back({weight.live, weight.clean, weight.weighted});
  }
  MergeWeights(merges, DoraWeighting::kScaledChange);
  Synchronize(device_);
  ExpectMerged();
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
