#include "src/nn/side_branch.h"

#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/nn/block_layout.h"
#include "src/nn/conv2d.h"
#include "src/nn/linear.h"
#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"

namespace hotlora {
namespace {

constexpr int64_t kIn = 24, kOut = 40;

at::Tensor Small(at::IntArrayRef shape) { return at::randn(shape) * 0.2; }

ModuleDelta LowRankDelta(size_t module, int64_t rank, at::IntArrayRef weight_shape, double scale = 0.5) {
  const int64_t columns = c10::multiply_integers(weight_shape.slice(1));
  ModuleDelta delta;
  delta.module = module;
  delta.change = LowRank{Small({rank, columns}), Small({weight_shape[0], rank}), {}};
  delta.scale = scale;
  return delta;
}

ModuleDelta Dora(size_t module, int64_t rank, at::IntArrayRef weight_shape) {
  ModuleDelta delta = LowRankDelta(module, rank, weight_shape);
  delta.magnitude = at::rand({weight_shape[0], 1, 1}) + 0.5;
  return delta;
}

// The changes that one adapter set makes, by module.
using Changes = std::vector<std::pair<size_t, std::vector<WeightedDelta>>>;

SideTable TableOf(const Changes& changes, const std::vector<at::Tensor>& clean, DoraWeighting dora) {
  SideTable table;
  for (const auto& [module, deltas] : changes) {
    EXPECT_TRUE(HasSideForm(deltas));
    table.Add(module, deltas, clean[module], dora);
  }
  return table;
}

class SideBranchTest : public testing::TestWithParam<DoraWeighting> {
 protected:
  // Modules 0, 1 and 2 in one stack.
  Linear MakeStack(Linear::Bias bias) {
    const Linear stack(ParameterScope(parameters_), {"q", "k", "v"}, kIn, kOut, bias);
    for (int64_t i = 0; i < 3; ++i) {
      clean_.push_back(stack.weight.narrow(0, i * kOut, kOut).clone());
    }
    return stack;
  }

  // What the stack puts out with the changes merged into its weights.
  at::Tensor Merged(Linear stack, const at::Tensor& x, const Changes& changes) {
    stack.weight = stack.weight.clone();
    for (const auto& [module, deltas] : changes) {
      at::Tensor live = stack.weight.narrow(0, static_cast<int64_t>(module) * kOut, kOut);
      MergeWeight(live, clean_[module], deltas, GetParam());
    }
    return stack.forward(x);
  }

  const c10::InferenceMode guard_;
  RandomParameters parameters_;
  std::vector<at::Tensor> clean_;
};

TEST_P(SideBranchTest, EachRowHasItsOwnAdapters) {
  for (const Linear::Bias bias : {Linear::Bias::kNone, Linear::Bias::kPresent}) {
    clean_.clear();
    parameters_.next_index = 0;
    const Linear stack = MakeStack(bias);
    const ModuleDelta q = LowRankDelta(0, 4, {kOut, kIn}), k = LowRankDelta(1, 2, {kOut, kIn}, -1.5),
                      v = LowRankDelta(2, 8, {kOut, kIn}), other_q = LowRankDelta(0, 3, {kOut, kIn}),
                      dora = Dora(1, 4, {kOut, kIn});
    const Changes one = {{0, {{&q, 1.0}}}, {1, {{&k, 0.7}}}, {2, {{&v, -0.3}}}};
    const Changes two = {{0, {{&q, 0.5}, {&other_q, 2.0}}}, {1, {{&dora, 0.6}}}};
    const SideTable table_one = TableOf(one, clean_, GetParam()), table_two = TableOf(two, clean_, GetParam());
    const std::vector<SideRows> rows = {{0, 2, &table_one}, {3, 1, &table_two}};
    const at::Tensor x = at::randn({5, 7, kIn});
    const at::Tensor y = stack.forward(x, rows), base = stack.forward(x);
    ExpectWithin(y.narrow(0, 0, 2), Merged(stack, x.narrow(0, 0, 2), one), 3e-5, "two rows of one set");
    ExpectWithin(y.narrow(0, 3, 1), Merged(stack, x.narrow(0, 3, 1), two), 3e-5, "another set");
    EXPECT_TRUE(at::equal(y[2], base[2]));
    EXPECT_TRUE(at::equal(y[4], base[4]));
  }
}

TEST_P(SideBranchTest, StackFromOneBlockIsTheSame) {
  const Linear stack = MakeStack(Linear::Bias::kPresent);
  AdapterWeights stored;
  for (size_t module = 0; module < 3; ++module) {
    stored.deltas.push_back(LowRankDelta(module, 3, {kOut, kIn}));
  }
  const auto laid_out =
      LayOut(stored, BlockDtype::kFloat, at::empty({BlockBytes(stored, BlockDtype::kFloat)}, at::kByte));
  Changes changes;
  for (const ModuleDelta& delta : laid_out->deltas) {
    changes.push_back({delta.module, {{&delta, 1.0}}});
  }
  const SideTable table = TableOf(changes, clean_, GetParam());
  const SideRows rows{0, 2, &table};
  const at::Tensor x = at::randn({2, 5, kIn});
  ExpectWithin(stack.forward(x, {&rows, 1}), Merged(stack, x, changes), 3e-5, "stack");
}

TEST_P(SideBranchTest, HalfTypesRoundOnceForEachAdapter) {
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    Linear linear(ParameterScope(parameters_).In("linear"), kIn, kOut);
    linear.weight = linear.weight.to(dtype);
    linear.bias = linear.bias.to(dtype);
    linear.module = 0;
    const ModuleDelta delta = LowRankDelta(0, 4, {kOut, kIn}), dora = Dora(0, 4, {kOut, kIn});
    for (const ModuleDelta* one : {&delta, &dora}) {
      const Changes changes = {{0, {{one, 0.8}}}};
      const SideTable table = TableOf(changes, {linear.weight}, GetParam());
      const SideRows rows{0, 2, &table};
      const at::Tensor x = at::randn({2, 3, kIn}).to(dtype);
      at::Tensor merged = at::empty({kOut, kIn});
      MergeWeight(merged, linear.weight, changes[0].second, GetParam());
      const at::Tensor expected = at::linear(x.to(at::kFloat), merged, linear.bias.to(at::kFloat));
      const at::Tensor y = linear.forward(x, {&rows, 1});
      EXPECT_EQ(y.scalar_type(), dtype);
      ExpectWithin(y.to(at::kFloat), expected, dtype == at::kHalf ? 4e-3 : 3e-2, "half");
    }
  }
}

TEST_P(SideBranchTest, Convolutions) {
  for (const Conv2dOptions& options :
       {Conv2dOptions{16, 24, 3, 1, 1}, Conv2dOptions{16, 24, 3, 2, 1}, Conv2dOptions{16, 24, 1, 1, 0}}) {
    Conv2d conv(ParameterScope(parameters_).In("conv"), options);
    conv.module = 0;
    const int64_t k = options.kernel;
    const std::vector<int64_t> shape = {options.out, options.in, k, k};
    ModuleDelta tucker = LowRankDelta(0, 4, {options.out, options.in});
    std::get<LowRank>(tucker.change).mid = Small({4, 4, k, k});
    const ModuleDelta flat = LowRankDelta(0, 4, shape), dora = Dora(0, 4, shape);
    for (const std::vector<WeightedDelta>& deltas :
         {std::vector<WeightedDelta>{{&flat, 0.9}, {&tucker, -0.4}}, std::vector<WeightedDelta>{{&dora, 0.6}}}) {
      const at::Tensor clean = conv.weight.contiguous();
      const SideTable table = TableOf({{0, deltas}}, {clean}, GetParam());
      const SideRows rows{1, 2, &table};
      for (const int64_t size : {2, 9}) {  // both ways in which a convolution is computed
        const at::Tensor x = at::randn({3, options.in, size, size}).contiguous(at::MemoryFormat::ChannelsLast);
        const at::Tensor y = conv.forward(x, {&rows, 1});
        Conv2d merged = conv;
        merged.weight = conv.weight.clone();
        MergeWeight(merged.weight, clean, deltas, GetParam());
        ExpectWithin(y.narrow(0, 1, 2), merged.forward(x).narrow(0, 1, 2), 1e-4, "convolution");
        ExpectWithin(y[0], conv.forward(x)[0], 0.0, "row without adapters");
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dora, SideBranchTest,
                         testing::Values(DoraWeighting::kScaledChange, DoraWeighting::kInterpolated));

TEST(SideFormTest, WhatHasNone) {
  const ModuleDelta plain = LowRankDelta(0, 2, {8, 8}), dora = Dora(0, 2, {8, 8});
  ModuleDelta over_inputs = dora, full, kronecker;
  over_inputs.magnitude = at::ones({1, 8, 1});
  full.change = FullDifference{at::ones({8, 8})};
  kronecker.change = Kronecker{at::ones({2, 2}), at::ones({4, 4})};
  EXPECT_TRUE(HasSideForm({{&plain, 1.0}, {&plain, 1.0}}));
  EXPECT_TRUE(HasSideForm({{&dora, 1.0}}));
  EXPECT_FALSE(HasSideForm({{&dora, 1.0}, {&plain, 1.0}}));
  EXPECT_FALSE(HasSideForm({{&plain, 1.0}, {&dora, 1.0}}));
  for (const ModuleDelta* delta : {&over_inputs, &full, &kronecker}) {
    EXPECT_FALSE(HasSideForm({{delta, 1.0}}));
  }
}

TEST(SideTableTest, ModulesWithoutChangesAreEmpty) {
  const ModuleDelta delta = LowRankDelta(2, 2, {8, 8});
  SideTable table;
  EXPECT_TRUE(table.empty());
  EXPECT_TRUE(table.Of(0).empty());
  table.Add(2, {{&delta, 1.0}}, at::ones({8, 8}), DoraWeighting::kScaledChange);
  table.Add(5, {{&delta, 1.0}, {&delta, 1.0}}, at::ones({8, 8}), DoraWeighting::kScaledChange);
  for (const auto& [module, count] : std::vector<std::pair<size_t, size_t>>{{0, 0}, {2, 1}, {3, 0}, {5, 2}, {6, 0}}) {
    EXPECT_EQ(table.Of(module).size(), count) << module;
  }
  EXPECT_TRUE(table.Of(AdaptableParameter::kNotListed).empty());
}

}  // namespace
}  // namespace hotlora
