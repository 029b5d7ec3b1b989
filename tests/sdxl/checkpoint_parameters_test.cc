#include "src/sdxl/checkpoint_parameters.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"

namespace hotlora {
namespace {

ComponentWeights SmallComponent() {
  return ComponentWeights("unet", {{"attn.to_q.weight", at::randn({3, 4}).to(at::kHalf)},
                                   {"attn.to_k.weight", at::randn({3, 4}).to(at::kHalf)},
                                   {"proj_in.weight", at::randn({4, 4, 1, 1})},
                                   {"conv.weight", at::randn({2, 3, 3, 3})},
                                   {"conv.bias", at::randn({2})},
                                   {"q.weight", at::randn({3, 4})},
                                   {"q.bias", at::randn({3}).to(at::kHalf)},
                                   {"k.weight", at::randn({3, 4})},
                                   {"k.bias", at::randn({3}).to(at::kHalf)},
                                   {"encoder.conv.weight", at::randn({1})},
                                   {"encoder.conv.bias", at::randn({1})}});
}

TEST(CheckpointParametersTest, StackedModulesAreRowsOfOneTensor) {
  c10::InferenceMode guard;
  ComponentWeights weights = SmallComponent();
  AdaptableModules modules;
  CheckpointParameters parameters(weights, TestPlace().device, at::kFloat, Component::kUnet, modules);
  const at::Tensor stack = parameters.TakeStacked({"attn.to_q.weight", "attn.to_k.weight"}, {3, 4}).live;
  EXPECT_EQ(stack.sizes(), at::IntArrayRef({6, 4}));
  ASSERT_EQ(modules.weights.size(), 2u);
  EXPECT_EQ(modules.table.modules[1].path, "attn.to_k");
  EXPECT_EQ(modules.weights[1].clean.scalar_type(), at::kHalf);
  EXPECT_TRUE(at::equal(stack.narrow(0, 3, 3), modules.weights[1].clean.to(at::kFloat)));
  modules.weights[1].live.fill_(7.0);
  EXPECT_TRUE((stack.narrow(0, 3, 3) == 7.0).all().item<bool>()) << "live is not the stack's rows";
  EXPECT_FALSE((stack.narrow(0, 0, 3) == 7.0).any().item<bool>());
}

TEST(CheckpointParametersTest, TakesALinearStoredAsAPointwiseConvolution) {
  c10::InferenceMode guard;
  ComponentWeights weights = SmallComponent();
  AdaptableModules modules;
  CheckpointParameters parameters(weights, TestPlace().device, at::kFloat, Component::kUnet, modules);
  const at::Tensor weight = parameters.TakeAdaptable("proj_in.weight", {4, 4}).live;
  EXPECT_EQ(weight.sizes(), at::IntArrayRef({4, 4}));
  EXPECT_EQ(modules.table.modules[0].shape, std::vector<int64_t>({4, 4}));
  EXPECT_EQ(modules.weights[0].clean.sizes(), at::IntArrayRef({4, 4}));
}

TEST(CheckpointParametersTest, ConvolutionsAreChannelsLastAndCleanOnesAsStored) {
  c10::InferenceMode guard;
  ComponentWeights weights = SmallComponent();
  AdaptableModules modules;
  CheckpointParameters parameters(weights, TestPlace().device, at::kFloat, Component::kUnet, modules);
  const at::Tensor weight = parameters.TakeAdaptable("conv.weight", {2, 3, 3, 3}).live;
  EXPECT_TRUE(weight.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(modules.weights[0].clean.is_contiguous());
  EXPECT_TRUE(at::equal(weight, modules.weights[0].clean));
  EXPECT_NE(weight.data_ptr(), modules.weights[0].clean.data_ptr());
}

TEST(CheckpointParametersTest, BiasesAreEntriesOfTheirOwn) {
  c10::InferenceMode guard;
  ComponentWeights weights = SmallComponent();
  AdaptableModules modules;
  CheckpointParameters parameters(weights, TestPlace().device, at::kFloat, Component::kUnet, modules);
  parameters.TakeStacked({"q.weight", "k.weight"}, {3, 4});
  const at::Tensor biases = parameters.TakeStacked({"q.bias", "k.bias"}, {3}).live;
  EXPECT_EQ(biases.sizes(), at::IntArrayRef({6}));
  const std::vector<AdaptableModule>& table = modules.table.modules;
  ASSERT_EQ(table.size(), 4u);
  EXPECT_EQ(table[0].bias, std::optional<size_t>(2));
  EXPECT_EQ(table[1].bias, std::optional<size_t>(3));
  EXPECT_TRUE(table[3].is_bias && !table[1].is_bias);
  EXPECT_EQ(table[3].path, "k");
  EXPECT_EQ(table[3].shape, std::vector<int64_t>({3}));
  modules.weights[3].live.fill_(7.0);
  EXPECT_TRUE((biases.narrow(0, 3, 3) == 7.0).all().item<bool>()) << "live is not the stack's rows";
  EXPECT_THROW(parameters.TakeAdaptable("conv.bias", {2}), c10::Error) << "a bias before its weight";
}

}  // namespace
}  // namespace hotlora
