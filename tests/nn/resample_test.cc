#include "src/nn/resample.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"

namespace hotlora {
namespace {

TEST(ResampleTest, DownsamplingRoundsOddSizesUp) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const Downsample2d down(ParameterScope(parameters), 4);
  EXPECT_EQ(down.forward(at::randn({1, 4, 7, 10})).sizes(), at::IntArrayRef({1, 4, 4, 5}));
}

TEST(ResampleTest, UpsamplingReachesTheSizeAskedForByTheNearestPixel) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  Upsample2d up(ParameterScope(parameters), 1);
  // An identity convolution leaves the enlarged pixels as they are.
  up.conv.weight.zero_();
  up.conv.weight[0][0][1][1] = 1.0;
  up.conv.bias.zero_();
  const at::Tensor x = at::tensor({1.0f, 2.0f, 3.0f, 4.0f}).view({1, 1, 2, 2});
  const at::Tensor y = up.forward(x, 3, 4);
  const at::Tensor expected =
      at::tensor({1.f, 1.f, 2.f, 2.f, 1.f, 1.f, 2.f, 2.f, 3.f, 3.f, 4.f, 4.f}).view({1, 1, 3, 4});
  ExpectWithin(y, expected, 0.0, "nearest");
}

}  // namespace
}  // namespace hotlora
