#include "src/nn/block_layout.h"

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/nn/weight_merge.h"
#include "src/nn/widen.h"
#include "tests/golden_support.h"

namespace hotlora {
namespace {

ModuleDelta Delta(size_t module, decltype(ModuleDelta::change) change) {
  ModuleDelta delta;
  delta.module = module;
  delta.change = std::move(change);
  return delta;
}

LowRank Factors(int64_t rank, int64_t in, int64_t out, at::ScalarType dtype = at::kHalf) {
  return {at::randn({rank, in}).to(dtype), at::randn({out, rank}).to(dtype), {}};
}

// An adapter of every form.
AdapterWeights EveryForm() {
  AdapterWeights stored;
  stored.deltas.push_back(Delta(0, Factors(4, 16, 32)));
  stored.deltas.push_back(Delta(1, Factors(8, 16, 32, at::kBFloat16)));
  stored.deltas.push_back(Delta(2, Factors(11, 16, 32, at::kFloat)));
  LowRank tucker = Factors(4, 16, 32);
  tucker.mid = at::randn({4, 4, 3, 3}).to(at::kHalf);
  stored.deltas.push_back(Delta(3, tucker));
  stored.deltas.push_back(Delta(4, Hadamard{Factors(4, 16, 32), Factors(3, 16, 32)}));
  stored.deltas.push_back(Delta(5, Hadamard{Factors(16, 16, 32), Factors(16, 16, 32)}));
  stored.deltas.push_back(Delta(6, Kronecker{at::randn({4, 2}), Factors(2, 8, 8)}));
  stored.deltas.push_back(Delta(7, FullDifference{at::randn({32, 16})}));
  stored.deltas.back().magnitude = at::rand({32, 1, 1}).to(at::kHalf);
  return stored;
}

std::shared_ptr<const AdapterWeights> LaidOut(const AdapterWeights& stored, BlockDtype dtype) {
  return LayOut(stored, dtype, at::full({BlockBytes(stored, dtype)}, 0xFF, at::kByte));
}

std::vector<int64_t> WeightShape(const ModuleDelta& delta) {
  const auto* const factors = std::get_if<LowRank>(&delta.change);
  const bool tucker = factors != nullptr && factors->mid.defined();
  return tucker ? std::vector<int64_t>{32, 16, 3, 3} : std::vector<int64_t>{32, 16};
}

TEST(BlockLayoutTest, ChangesAreTheSame) {
  const c10::InferenceMode guard;
  const AdapterWeights stored = EveryForm();
  const at::Tensor slab = at::zeros({1 << 20}, at::kByte);
  for (const BlockDtype dtype : {BlockDtype::kFloat, BlockDtype::kAsStored}) {
    const auto host = LaidOut(stored, dtype);
    for (const auto& laid_out : {host, CopyToSlab(*host, slab, 4096)}) {
      for (size_t i = 0; i < stored.deltas.size(); ++i) {
        const at::Tensor clean = at::randn(WeightShape(stored.deltas[i]));
        at::Tensor before = at::empty_like(clean), after = at::empty_like(clean);
        MergeWeight(before, clean, {{&stored.deltas[i], 0.7}});
        MergeWeight(after, clean, {{&laid_out->deltas[i], 0.7}});
        // LoHa's face-split factors are rounded to the stored dtype nowhere: they become float32.
        ExpectWithin(after, before, 1e-4, "module " + std::to_string(i));
        EXPECT_EQ(laid_out->deltas[i].module, stored.deltas[i].module);
      }
    }
  }
}

TEST(BlockLayoutTest, RanksArePaddedAndDownsLieOneBehindTheOther) {
  const c10::InferenceMode guard;
  const auto laid_out = LaidOut(EveryForm(), BlockDtype::kFloat);
  const char* expected = static_cast<const char*>(laid_out->block.const_data_ptr());
  for (size_t i = 0; i < 3; ++i) {
    const auto& factors = std::get<LowRank>(laid_out->deltas[i].change);
    EXPECT_EQ(factors.down.size(0), i < 2 ? 8 : 16);
    EXPECT_EQ(factors.up.size(1), factors.down.size(0));
    EXPECT_EQ(factors.down.scalar_type(), at::kFloat);
    EXPECT_EQ(static_cast<const char*>(factors.down.const_data_ptr()), expected);
    expected += factors.down.nbytes();
  }
  const auto& padded = std::get<LowRank>(laid_out->deltas[0].change);
  EXPECT_EQ(padded.down.narrow(0, 4, 4).abs().max().item<float>(), 0.0f);
  EXPECT_EQ(padded.up.narrow(1, 4, 4).abs().max().item<float>(), 0.0f);
}

TEST(BlockLayoutTest, LohaOfSmallRankBecomesLowRank) {
  const c10::InferenceMode guard;
  const auto laid_out = LaidOut(EveryForm(), BlockDtype::kFloat);
  EXPECT_EQ(std::get<LowRank>(laid_out->deltas[4].change).down.size(0), 16);  // 4 * 3, padded
  EXPECT_TRUE(std::holds_alternative<Hadamard>(laid_out->deltas[5].change));
}

TEST(WidenTest, EveryHalf) {
  std::vector<uint16_t> bits(1 << 16);
  for (size_t i = 0; i < bits.size(); ++i) {
    bits[i] = static_cast<uint16_t>(i);
  }
  std::vector<float> widened(bits.size() - 3);
  WidenHalf(bits.data() + 3, widened.data(), static_cast<int64_t>(widened.size()));
  const at::Tensor expected = at::from_blob(bits.data() + 3, {int64_t(widened.size())}, at::kHalf).to(at::kFloat);
  const at::Tensor actual = at::from_blob(widened.data(), {int64_t(widened.size())}, at::kFloat);
  EXPECT_TRUE(at::allclose(actual, expected, 0, 0, /*equal_nan=*/true));
}

}  // namespace
}  // namespace hotlora
