#include "src/nn/onednn_ops.h"

#include <string>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/nn/conv2d.h"
#include "src/nn/packed_weight.h"
#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"

namespace hotlora {
namespace {

struct Case {
  at::ScalarType dtype;
  double tolerance;  // relative, in the Euclidean norm, to float64
};

const Case kCases[] = {{at::kFloat, 2e-6}, {at::kBFloat16, 4e-3}, {at::kHalf, 1e-3}};

at::Tensor Double(const at::Tensor& x) { return x.defined() ? x.to(at::kDouble) : x; }

at::Tensor ChannelsLast(const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); }

TEST(OneDnnOpsTest, ProductsAreThoseOfDoubles) {
  const c10::InferenceMode guard;
  at::manual_seed(5);
  for (const auto& [dtype, tolerance] : kCases) {
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{3, 24}, {16, 24}, {1, 77, 24}, {2, 64, 24}, {1, 129, 24}, {2, 100, 24}}) {
      const at::Tensor x = at::randn(shape).to(dtype), weight = at::randn({41, 24}).to(dtype);
      for (const at::Tensor& bias : {at::Tensor(), at::randn({41}).to(dtype)}) {
        const at::Tensor expected = at::linear(Double(x), Double(weight), Double(bias));
        const std::string what = std::string(at::toString(dtype)) + (bias.defined() ? " with bias" : "");
        const at::Tensor y = Product(x, weight, bias);
        EXPECT_EQ(y.scalar_type(), dtype);
        EXPECT_EQ(y.sizes(), expected.sizes());
        EXPECT_TRUE(y.is_contiguous());
        ExpectError(RelativeError(y, expected), tolerance, "product in " + what);
        const at::Tensor twice = at::cat({x, x}, -1).narrow(-1, 0, 24);  // it is not contiguous
        ExpectError(RelativeError(Product(twice, weight, bias), expected), tolerance, "product of a part in " + what);
        at::Tensor wide = at::full({x.numel() / 24 + 2, 41}, 7.0, dtype);  // rows before and after stay
        at::Tensor part = wide.narrow(0, 1, x.numel() / 24);
        ProductInto(x, weight, bias, part);
        ExpectError(RelativeError(part, expected.view({-1, 41})), tolerance, "product into in " + what);
        EXPECT_TRUE(at::equal(wide[0], at::full({41}, 7.0, dtype)) && at::equal(wide[-1], wide[0])) << what;
        if (const at::Tensor packed = EmptyPacked({48, 24}, dtype); packed.defined()) {
          const at::Tensor more = at::randn({48, 24}).to(dtype);
          CopyWeight(more, packed);
          const at::Tensor by_packed = Product(twice, packed, {});
          EXPECT_TRUE(by_packed.is_contiguous());
          ExpectError(RelativeError(by_packed, at::linear(Double(x), Double(more))), tolerance, "packed, in " + what);
        }
      }
    }
  }
}

TEST(OneDnnOpsTest, AConvolutionIsAddedAsByThePlainForm) {
  const c10::InferenceMode guard;
  at::manual_seed(6);
  const int threads = at::get_num_threads();
  for (const int now : {1, 3}) {
    at::set_num_threads(now);
    for (const auto& [dtype, tolerance] : kCases) {
      for (const int64_t kernel : {1, 3}) {
        for (const int64_t stride : {1, 2}) {
          const at::Tensor x = ChannelsLast(at::randn({2, 16, 9, 12}).to(dtype));
          const at::Tensor weight = ChannelsLast(at::randn({24, 16, kernel, kernel}).to(dtype));
          const at::Tensor bias = at::randn({24}).to(dtype), before = x.clone();
          const c10::SmallVector<int64_t, 2> strides(2, stride), padding(2, kernel / 2);
          const at::Tensor once = at::conv2d(Double(x), Double(weight), Double(bias), strides, padding);
          at::Tensor sum = ChannelsLast(at::randn(once.sizes()).to(dtype));
          at::Tensor expected = Double(sum), contiguous = sum.contiguous();
          plain::AddConvolution(Double(x), Double(weight), Double(bias), strides, padding, expected);
          ExpectError(RelativeError(expected - Double(sum), once), 1e-12, "the plain form");
          AddConvolution(x, weight, bias, strides, padding, sum);
          ExpectError(RelativeError(sum, expected), tolerance, std::string("sum in ") + at::toString(dtype));
          AddConvolution(x, weight, bias, strides, padding, contiguous);
          ExpectError(RelativeError(contiguous, expected), 2 * tolerance, "a sum in another layout");
          EXPECT_TRUE(at::equal(x, before));
        }
      }
    }
  }
  at::set_num_threads(threads);
}

TEST(OneDnnOpsTest, AConvolutionAddsWhatItGives) {
  const c10::InferenceMode guard;
  for (const WeightOrder order : {WeightOrder::kPlain, WeightOrder::kPacked}) {
    RandomParameters parameters;
    Conv2dOptions options{16, 32};
    options.order = order;
    Conv2d conv(ParameterScope(parameters).In("conv"), options);
    EXPECT_EQ(IsPacked(conv.weight), order == WeightOrder::kPacked && HasPackedProducts(at::kFloat));
    conv.module = 0;
    ModuleDelta dora;  // scales the convolution's own share of the sum, and no other
    dora.change = LowRank{at::randn({4, 16 * 9}) * 0.2, at::randn({32, 4}) * 0.2, {}};
    dora.magnitude = at::rand({32, 1, 1}) + 0.5;
    SideTable table;
    const WeightedDelta weighted{&dora, 1.0};
    table.Add(0, absl::MakeConstSpan(&weighted, 1), parameters.taken.at("conv.weight").contiguous(),
              DoraWeighting::kScaledChange);
    const SideRows second_row{1, 1, &table};
    for (const int64_t size : {1, 9}) {
      const at::Tensor x = ChannelsLast(at::randn({2, 16, size, size}));
      const at::Tensor sum = ChannelsLast(at::randn({2, 32, size, size}));
      ExpectWithin(conv.forward(x), at::conv2d(x, parameters.taken.at("conv.weight"), conv.bias, 1, 1), 2e-5, "result");
      for (const SideBranch side : {SideBranch(), SideBranch(&second_row, 1)}) {
        at::Tensor now = sum.clone();
        conv.forward_add(x, now, side);
        ExpectWithin(now, conv.forward(x, side) + sum, 2e-5,
                     "sum with " + std::to_string(side.size()) + " side branches");
      }
    }
  }
}

}  // namespace
}  // namespace hotlora
