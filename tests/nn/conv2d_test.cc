#include "src/nn/conv2d.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"

namespace hotlora {
namespace {

// The definition: a sum over the window, in double.
at::Tensor ReferenceConv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t stride,
                         int64_t padding) {
  const int64_t kernel = weight.size(2);
  const at::Tensor padded = at::constant_pad_nd(x.to(at::kDouble), {padding, padding, padding, padding});
  const int64_t height = (padded.size(2) - kernel) / stride + 1, width = (padded.size(3) - kernel) / stride + 1;
  at::Tensor y = bias.to(at::kDouble).view({1, -1, 1, 1}).expand({x.size(0), weight.size(0), height, width}).clone();
  for (int64_t i = 0; i < height; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      const at::Tensor window = padded.narrow(2, i * stride, kernel).narrow(3, j * stride, kernel).flatten(1);
      y.select(2, i).select(2, j).add_(at::matmul(window, weight.to(at::kDouble).flatten(1).t()));
    }
  }
  return y;
}

struct Shape {
  int64_t in, out, kernel, stride, padding, height, width;
};

class Conv2dTest : public testing::TestWithParam<Shape> {};

TEST_P(Conv2dTest, IsTheSumOverTheWindow) {
  c10::InferenceMode guard;
  const Shape s = GetParam();
  for (const WeightOrder order : {WeightOrder::kPlain, WeightOrder::kPacked}) {
    RandomParameters parameters;
    const Conv2d conv(ParameterScope(parameters).In("conv"), {s.in, s.out, s.kernel, s.stride, s.padding, order});
    const at::Tensor x = at::randn({2, s.in, s.height, s.width}).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor y = conv.forward(x);
    ExpectWithin(y, ReferenceConv(x, parameters.taken.at("conv.weight"), conv.bias, s.stride, s.padding), 1e-4, "conv");
    EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Conv2dTest,
                         testing::Values(Shape{4, 32, 3, 1, 1, 8, 8}, Shape{32, 4, 3, 1, 1, 5, 9},
                                         Shape{64, 48, 3, 1, 1, 2, 2}, Shape{16, 16, 3, 1, 1, 1, 1},
                                         Shape{16, 16, 3, 2, 1, 8, 8}, Shape{16, 24, 3, 2, 1, 7, 5},
                                         Shape{40, 16, 1, 1, 0, 6, 4}, Shape{16, 160, 3, 2, 1, 7, 5},
                                         Shape{40, 128, 1, 1, 0, 3, 2}, Shape{16, 8, 3, 1, 1, 96, 80}));

}  // namespace
}  // namespace hotlora
