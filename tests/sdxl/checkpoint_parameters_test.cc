#include "src/sdxl/checkpoint_parameters.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/nn/packed_weight.h"
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
  const at::Tensor stack =
      parameters.TakeStacked({"attn.to_q.weight", "attn.to_k.weight"}, {3, 4}, WeightOrder::kPacked).live;
  EXPECT_EQ(stack.sizes(), at::IntArrayRef({6, 4}));
  ASSERT_EQ(modules.weights.size(), 2u);
  EXPECT_EQ(modules.table.modules[1].path, "attn.to_k");
  EXPECT_EQ(modules.weights[1].clean.scalar_type(), at::kHalf);
  EXPECT_TRUE(at::equal(stack.narrow(0, 3, 3), modules.weights[1].clean.to(at::kFloat)));
  modules.weights[1].live.fill_(7.0);
  EXPECT_TRUE((stack.narrow(0, 3, 3) == 7.0).all().item<bool>()) << "live is not the stack's rows";
  EXPECT_FALSE((stack.narrow(0, 0, 3) == 7.0).any().item<bool>());
}

TEST(CheckpointParametersTest, PackedModulesAreBlocksOfOneTensor) {
  c10::InferenceMode guard;
  if (!TestPlace().device.is_cpu() || !HasPackedProducts(at::kFloat)) {
    GTEST_SKIP() << "there are no packed products";
  }
  ComponentWeights weights("unet", {{"to_k.weight", at::randn({32, 6}).to(at::kHalf)},
                                    {"to_v.weight", at::randn({32, 6}).to(at::kHalf)},
                                    {"conv.weight", at::randn({16, 6, 3, 3})}});
  AdaptableModules modules;
  CheckpointParameters parameters(weights, TestPlace().device, at::kFloat, Component::kUnet, modules);
  const at::Tensor stack = parameters.TakeStacked({"to_k.weight", "to_v.weight"}, {32, 6}, WeightOrder::kPacked).live;
  parameters.TakeAdaptable("conv.weight", {16, 6, 3, 3}, WeightOrder::kPacked);
  ASSERT_EQ(modules.weights.size(), 3u);
  EXPECT_EQ(OutputsOf(stack), 64);
  for (size_t i = 0; i < 3; ++i) {
    const AdaptableWeight& weight = modules.weights[i];
    EXPECT_TRUE(IsPacked(weight.live) && IsCopyOf(weight.live, weight.clean)) << i;
    EXPECT_EQ(modules.table.modules[i].shape, weight.clean.sizes().vec());
  }
  modules.weights[1].live.fill_(7.0);
  EXPECT_TRUE((stack.narrow(0, 1, 1) == 7.0).all().item<bool>()) << "live is not the stack's block";
  EXPECT_TRUE(IsCopyOf(modules.weights[0].live, modules.weights[0].clean));
}

TEST(CheckpointParametersTest, TakesALinearStoredAsAPointwiseConvolution) {
  c10::InferenceMode guard;
  ComponentWeights weights = SmallComponent();
  AdaptableModules modules;
  CheckpointParameters parameters(weights, TestPlace().device, at::kFloat, Component::kUnet, modules);
  const at::Tensor weight = parameters.TakeAdaptable("proj_in.weight", {4, 4}, WeightOrder::kPacked).live;
  EXPECT_EQ(weight.sizes(), at::IntArrayRef({4, 4}));
  EXPECT_EQ(modules.table.modules[0].shape, std::vector<int64_t>({4, 4}));
  EXPECT_EQ(modules.weights[0].clean.sizes(), at::IntArrayRef({4, 4}));
}

TEST(CheckpointParametersTest, ConvolutionsAreChannelsLastAndCleanOnesAsStored) {
  c10::InferenceMode guard;
  ComponentWeights weights = SmallComponent();
  AdaptableModules modules;
  CheckpointParameters parameters(weights, TestPlace().device, at::kFloat, Component::kUnet, modules);
  const at::Tensor weight = parameters.TakeAdaptable("conv.weight", {2, 3, 3, 3}, WeightOrder::kPlain).live;
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
  parameters.TakeStacked({"q.weight", "k.weight"}, {3, 4}, WeightOrder::kPacked);
  const at::Tensor biases = parameters.TakeStacked({"q.bias", "k.bias"}, {3}, WeightOrder::kPlain).live;
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
  EXPECT_THROW(parameters.TakeAdaptable("conv.bias", {2}, WeightOrder::kPlain), c10::Error)
      << "a bias before its weight";
}

}  // namespace
}  // namespace hotlora
