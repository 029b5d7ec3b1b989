#include "src/nn/packed_weight.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/nn/grouped_merge.h"
#include "src/nn/packed_product.h"
#include "tests/golden_support.h"

namespace hotlora {
namespace {

at::Tensor Double(const at::Tensor& x) { return x.defined() ? x.to(at::kDouble) : x; }

at::Tensor ChannelsLast(const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); }

at::Tensor Packed(const at::Tensor& plain, at::ScalarType dtype) {
  const at::Tensor packed = EmptyPacked(plain.sizes(), dtype);
  CopyWeight(plain, packed);
  return packed;
}

// A case for each dtype that this CPU has packed products for; every x86-64 CPU with AVX2 has those of float32.
class PackedWeightTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    if (!HasPackedProducts(dtype_)) {
      GTEST_SKIP() << "this CPU has no packed products in " << dtype_;
    }
  }

  const at::ScalarType dtype_ = GetParam();
  const double tolerance_ = dtype_ == at::kFloat ? 2e-6 : 4e-3;  // relative, in the Euclidean norm, to float64
  const c10::InferenceMode inference_;
};

INSTANTIATE_TEST_SUITE_P(Dtypes, PackedWeightTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& param) { return std::string(at::toString(param.param)); });

#if defined(__x86_64__)
// Else all cases below would be skipped, and the server would be slow without a word.
TEST(HasPackedProductsTest, IsTrueOnCpusThatHaveThem) {
  if (std::getenv("ONEDNN_MAX_CPU_ISA") != nullptr) {
    GTEST_SKIP() << "ONEDNN_MAX_CPU_ISA limits oneDNN";
  }
  EXPECT_EQ(HasPackedProducts(at::kFloat), __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(HasPackedProducts(at::kBFloat16), __builtin_cpu_supports("avx512bf16") != 0);
  EXPECT_FALSE(HasPackedProducts(at::kHalf));
}
#endif

TEST_P(PackedWeightTest, LiesInBlocksOfOutputs) {
  const at::Tensor plain = at::randn({48, 6, 3, 3}).to(dtype_), packed = Packed(plain, dtype_);
  const int64_t v = dtype_ == at::kFloat ? 1 : 2;
  ASSERT_EQ(packed.sizes(), at::IntArrayRef({1, 48, 6 / v, v, 9}));
  EXPECT_EQ(OutputsOf(packed), 48);
  const at::Tensor memory = packed.as_strided({1, 9, 6 / v, 48, v}, {9 * 6 * 48, 6 * 48, 48 * v, v, 1});
  for (int64_t out = 0; out < 48; out += 5) {
    for (int64_t in = 0; in < 6; ++in) {
      for (int64_t pixel = 0; pixel < 9; ++pixel) {
        EXPECT_EQ(memory[0][pixel][in / v][out][in % v].item<float>(),
                  plain[out][in][pixel / 3][pixel % 3].item<float>());
      }
    }
  }
}

TEST_P(PackedWeightTest, TakesBlocksThatDivideTheOutputs) {
  for (const auto& [out, block] : std::vector<std::pair<int64_t, int64_t>>{
           {1280, 64}, {64, 64}, {240, 48}, {80, 80}, {32, 32}, {16, 16}, {112, 16}}) {
    EXPECT_EQ(EmptyPacked({out, 8}, dtype_).sizes(),
              (dtype_ == at::kFloat ? at::IntArrayRef({out / block, block, 8, 1, 1})
                                    : at::IntArrayRef({out / block, block, 4, 2, 1})));
  }
  EXPECT_EQ(EmptyPacked({16, 8}, dtype_, /*stacked=*/3).size(0), 3);
  EXPECT_FALSE(EmptyPacked({40, 8}, dtype_).defined());
  EXPECT_EQ(EmptyPacked({16, 7}, dtype_).defined(), dtype_ == at::kFloat);
  EXPECT_FALSE(EmptyPacked({16, 8}, at::kHalf).defined());
}

TEST_P(PackedWeightTest, CopiesRoundAsLibTorchDoes) {
  const int threads = at::get_num_threads();
  for (const int now : {1, 3}) {
    at::set_num_threads(now);
    for (const at::ScalarType stored : {at::kFloat, at::kHalf, at::kBFloat16}) {
      for (const std::vector<int64_t>& shape : {std::vector<int64_t>{192, 260}, {80, 24}, {32, 10, 3, 3}}) {
        const at::Tensor plain = at::randn(shape).to(stored), packed = Packed(plain, dtype_);
        EXPECT_TRUE(at::equal(packed, plain.to(dtype_).view(packed.sizes())))
            << at::toString(stored) << " " << plain.sizes();
      }
    }
  }
  at::set_num_threads(threads);
}

TEST_P(PackedWeightTest, IsMergedAsAPlainWeightIs) {
  for (const at::ScalarType stored : {at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{192, 1300}, {80, 24}, {32, 10, 3, 3}}) {
      const at::Tensor clean = at::randn(shape).to(stored);
      const at::Tensor plain = at::empty(shape, dtype_), packed = EmptyPacked(shape, dtype_);
      ModuleDelta product{0, LowRank{at::randn({4, clean[0].numel()}), at::randn({shape[0], 4}), {}}, 0.5},
          dora = product;
      dora.magnitude = at::rand({shape[0], 1, 1});
      for (const ModuleDelta* const delta : std::vector<const ModuleDelta*>{&product, &dora, nullptr}) {
        std::vector<WeightedDelta> deltas;
        if (delta != nullptr) {
          deltas.push_back({delta, 0.75});
        }
        MergeWeights({{plain, clean, deltas}, {packed, clean, deltas}}, DoraWeighting::kScaledChange);
        EXPECT_TRUE(at::equal(packed, plain.view(packed.sizes()))) << at::toString(stored) << " " << clean.sizes();
      }
    }
  }
}

TEST_P(PackedWeightTest, ProductsAreThoseOfDoubles) {
  at::manual_seed(5);
  for (const auto& [rows, in, out] : std::vector<std::array<int64_t, 3>>{
           {1, 2, 16}, {2, 24, 48}, {77, 1300, 192}, {128, 320, 80}, {300, 640, 64}, {131, 34, 240}}) {
    const at::Tensor plain = (at::randn({out, in}) / std::sqrt(static_cast<double>(in))).to(dtype_);
    const at::Tensor weight = Packed(plain, dtype_), x = at::randn({rows, in}).to(dtype_);
    const std::string what = std::to_string(rows) + " x " + std::to_string(in) + " x " + std::to_string(out);
    for (const at::Tensor& bias : {at::Tensor(), at::randn({out}).to(dtype_)}) {
      const at::Tensor expected = at::linear(Double(x), Double(plain), Double(bias));
      const at::Tensor y = at::full({rows, out}, NAN, dtype_);
      PackedProductInto(x, weight, bias, y);
      ExpectError(RelativeError(y, expected), tolerance_, what);
      // Parts of wider tensors: what lies beside the result stays.
      const at::Tensor wide_x = at::cat({x, x * 3.0}, 1), wide_y = at::full({rows, out + 5}, 7.0, dtype_);
      PackedProductInto(wide_x.narrow(1, 0, in), weight, bias, wide_y.narrow(1, 3, out));
      EXPECT_TRUE(at::equal(wide_y.narrow(1, 3, out), y)) << what;
      EXPECT_TRUE((wide_y.narrow(1, 0, 3) == 7.0).all().item<bool>() &&
                  (wide_y.narrow(1, out + 3, 2) == 7.0).all().item<bool>());
    }
  }
}

TEST_P(PackedWeightTest, ConvolutionsAreThoseOfDoubles) {
  at::manual_seed(6);
  for (const int64_t kernel : {1, 3}) {
    for (const int64_t stride : {1, 2}) {
      for (const auto& [height, width] : {std::pair<int64_t, int64_t>{1, 1}, {9, 12}, {3, 200}, {40, 16}}) {
        const at::Tensor x = ChannelsLast(at::randn({2, 34, height, width}).to(dtype_));
        const at::Tensor plain = (at::randn({48, 34, kernel, kernel}) / (6.0 * static_cast<double>(kernel))).to(dtype_);
        const at::Tensor weight = Packed(plain, dtype_), bias = at::randn({48}).to(dtype_);
        const c10::SmallVector<int64_t, 2> strides(2, stride), padding(2, kernel / 2);
        const at::Tensor expected = at::conv2d(Double(x), Double(plain), Double(bias), strides, padding);
        const std::string what = std::to_string(height) + " x " + std::to_string(width) + ", stride " +
                                 std::to_string(stride) + ", kernel " + std::to_string(kernel);
        const Window window{kernel, stride, kernel / 2};
        const at::Tensor y = ChannelsLast(at::full(expected.sizes(), NAN, dtype_));
        PackedConvolutionInto(x, weight, bias, window, Result::kNew, y);
        ExpectError(RelativeError(y, expected), tolerance_, what);
        const at::Tensor before = ChannelsLast(at::randn(expected.sizes()).to(dtype_)), sum = before.clone();
        PackedConvolutionInto(x, weight, bias, window, Result::kSum, sum);
        ExpectError(RelativeError(sum, expected + Double(before)), tolerance_, "sum, " + what);
      }
    }
  }
}

TEST_P(PackedWeightTest, ARowDependsNeitherOnOtherRowsNorOnThreads) {
  const int threads = at::get_num_threads();
  const at::Tensor x = at::randn({300, 700}).to(dtype_);
  const at::Tensor weight = Packed(at::randn({128, 700}), dtype_);
  const auto product = [&](int64_t first, int64_t rows) {
    const at::Tensor y = at::empty({rows, 128}, dtype_);
    PackedProductInto(x.narrow(0, first, rows), weight, {}, y);
    return y;
  };
  at::set_num_threads(1);
  const at::Tensor together = product(0, 300);
  for (const int now : {1, 3}) {
    at::set_num_threads(now);
    EXPECT_TRUE(at::equal(product(0, 300), together));
    for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 1}, {5, 2}, {100, 131}, {299, 1}}) {
      EXPECT_TRUE(at::equal(product(first, rows), together.narrow(0, first, rows))) << rows << " from " << first;
    }
  }
  at::set_num_threads(threads);
}

TEST_P(PackedWeightTest, WrongShapesAndTypesAreRefused) {
  const at::Tensor weight = Packed(at::randn({16, 8}), dtype_);
  const auto tensor = [&](at::IntArrayRef shape) { return at::zeros(shape, dtype_); };
  EXPECT_THROW(PackedProductInto(tensor({3, 6}), weight, {}, tensor({3, 16})), c10::Error);
  EXPECT_THROW(PackedProductInto(tensor({3, 8}), weight, {}, tensor({2, 16})), c10::Error);
  EXPECT_THROW(PackedProductInto(tensor({8, 3}).t(), weight, {}, tensor({3, 16})), c10::Error);
  EXPECT_THROW(PackedProductInto(at::zeros({3, 8}, at::kHalf), weight, {}, tensor({3, 16})), c10::Error);
  EXPECT_THROW(PackedProductInto(tensor({3, 8}), weight, tensor({15}), tensor({3, 16})), c10::Error);
  const auto convolve = [&](at::IntArrayRef x, const Window& window, at::IntArrayRef y) {
    PackedConvolutionInto(ChannelsLast(tensor(x)), weight, {}, window, Result::kNew, ChannelsLast(tensor(y)));
  };
  convolve({1, 8, 2, 3}, {1, 1, 0}, {1, 16, 2, 3});
  EXPECT_THROW(convolve({1, 8, 2, 3}, {3, 1, 1}, {1, 16, 2, 3}), c10::Error);
  EXPECT_THROW(convolve({1, 8, 2, 3}, {1, 1, 0}, {1, 16, 3, 3}), c10::Error);
  EXPECT_THROW(CopyWeight(tensor({32, 8}), weight), c10::Error);
  EXPECT_THROW(CopyWeight(tensor({16, 6}), weight), c10::Error);
  EXPECT_THROW(CopyRows(tensor({16, 8}), 16, weight), c10::Error);
  EXPECT_THROW(CopyRows(tensor({8, 8}), 0, weight), c10::Error);
  const at::Tensor clean = tensor({16, 2, 4}), plain = tensor({16, 8}), other = tensor({32, 8});
  EXPECT_THROW(MergeWeights({{plain, clean, {}}}, DoraWeighting::kScaledChange), c10::Error);
  EXPECT_THROW(MergeWeights({{weight, other, {}}}, DoraWeighting::kScaledChange), c10::Error);
}

}  // namespace
}  // namespace hotlora
