#include "src/nn/resnet_block.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"

namespace hotlora {
namespace {

at::Tensor Reference(const std::map<std::string, at::Tensor>& p, const at::Tensor& x, const at::Tensor& time_silu) {
  auto conv = [&p](const at::Tensor& input, const std::string& name, int64_t padding) {
    return at::conv2d(input, p.at(name + ".weight"), p.at(name + ".bias"), {1, 1}, {padding, padding});
  };
  auto norm = [&p](const at::Tensor& input, const std::string& name) {
    return at::silu(at::group_norm(input, 4, p.at(name + ".weight"), p.at(name + ".bias"), 1e-5));
  };
  at::Tensor h = conv(norm(x, "norm1"), "conv1", 1);
  if (time_silu.defined()) {
    h = h + at::linear(time_silu, p.at("time_emb_proj.weight"), p.at("time_emb_proj.bias")).view({x.size(0), -1, 1, 1});
  }
  h = conv(norm(h, "norm2"), "conv2", 1);
  return h + (p.count("conv_shortcut.weight") > 0 ? conv(x, "conv_shortcut", 0) : x);
}

TEST(ResnetBlockTest, AddsShortcutAndTime) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const ResnetBlock block(ParameterScope(parameters), {8, 12, /*time_width=*/6, /*groups=*/4, 1e-5});
  const at::Tensor x = at::randn({2, 8, 5, 6}).contiguous(at::MemoryFormat::ChannelsLast), time = at::randn({2, 6});
  const at::Tensor before = x.clone();
  ExpectWithin(block.forward(x, block.ProjectTime(time)), Reference(parameters.taken, x, time), 1e-5, "block");
  EXPECT_TRUE(at::equal(x, before)) << "the input, which is also a skip connection, was overwritten";
}

TEST(ResnetBlockTest, AddsTheInputItselfWhereWidthsAgree) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const ResnetBlock block(ParameterScope(parameters), {8, 8, /*time_width=*/0, /*groups=*/4, 1e-5});
  const at::Tensor x = at::randn({1, 8, 4, 4}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor before = x.clone();
  ExpectWithin(block.forward(x, {}), Reference(parameters.taken, x, {}), 1e-5, "block");
  EXPECT_TRUE(at::equal(x, before));
  EXPECT_FALSE(block.conv_shortcut.has_value());
}

}  // namespace
}  // namespace hotlora
