#include "src/nn/fused_ops.h"

#include <limits>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/nn/fused_kernels.h"
#include "tests/golden_support.h"

namespace hotlora {
namespace {

struct Case {
  at::ScalarType dtype;
  double tolerance;  // relative, in the Euclidean norm, to the plain form in double
};

const Case kCases[] = {{at::kFloat, 5e-7}, {at::kBFloat16, 4e-3}, {at::kHalf, 1e-3}};

at::Tensor Random(at::IntArrayRef shape, at::ScalarType dtype) { return at::randn(shape).to(dtype); }

at::Tensor ChannelsLast(const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); }

at::Tensor Double(const at::Tensor& x) { return x.defined() ? x.to(at::kDouble) : x; }

void ExpectClose(const at::Tensor& actual, const at::Tensor& expected, const Case& kind, const std::string& what) {
  EXPECT_EQ(actual.scalar_type(), kind.dtype) << what;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  EXPECT_TRUE(RelativeError(actual, expected) <= kind.tolerance)  // so that NaN fails
      << what << " in " << kind.dtype << ": " << RelativeError(actual, expected);
}

class FusedOpsTest : public testing::Test {
 protected:
  FusedOpsTest() { at::manual_seed(3); }
  const c10::InferenceMode guard_;
};

TEST_F(FusedOpsTest, GroupNormIsThePlainOne) {
  for (const Case& kind : kCases) {
    // Odd widths, one pixel, several pieces of a row, values far from 0.
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{2, 80, 9, 7}, {1, 12, 1, 1}, {3, 36, 40, 33}, {1, 640, 30, 31}}) {
      const int64_t channels = shape[1];
      const at::Tensor x = ChannelsLast(Random(shape, kind.dtype) * 2 + 1);
      const at::Tensor weight = Random({channels}, kind.dtype), bias = Random({channels}, kind.dtype);
      for (const at::Tensor& shift : {at::Tensor(), Random({shape[0], channels}, kind.dtype)}) {
        for (const bool silu : {false, true}) {
          const GroupNormOptions options{4, 1e-5, silu};
          const at::Tensor y = FusedGroupNorm(x.clone(), shift, weight, bias, options);
          ExpectClose(y, plain::FusedGroupNorm(Double(x), Double(shift), Double(weight), Double(bias), options), kind,
                      "group norm");
          EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
        }
      }
    }
  }
}

TEST_F(FusedOpsTest, GroupNormOfAnotherLayoutIsTheSame) {
  const at::Tensor x = at::randn({2, 8, 5, 6}), weight = at::randn({8}), bias = at::randn({8});
  const GroupNormOptions options{2, 1e-5, true};
  ExpectWithin(FusedGroupNorm(x, {}, weight, bias, options), FusedGroupNorm(ChannelsLast(x), {}, weight, bias, options),
               1e-5, "contiguous");
}

TEST_F(FusedOpsTest, AddLayerNormIsThePlainOne) {
  for (const Case& kind : kCases) {
    for (const int64_t width : {1, 6, 16, 77, 1280}) {
      at::Tensor x = Random({2, 13, width}, kind.dtype);
      const at::Tensor added = Random({2, 13, width}, kind.dtype), before = added.clone();
      const at::Tensor weight = Random({width}, kind.dtype), bias = Random({width}, kind.dtype);
      at::Tensor sum = Double(x);
      const at::Tensor expected =
          plain::AddLayerNorm(sum, Double(added), Double(weight), Double(bias), /*epsilon=*/1e-5);
      const at::Tensor exact_sum = (x.to(at::kFloat) + added.to(at::kFloat)).to(kind.dtype);
      const at::Tensor y = AddLayerNorm(x, added, weight, bias, 1e-5);
      // A half type's norm may be of the sum before or after its rounding.
      const Case looser{kind.dtype, kind.dtype == at::kFloat ? kind.tolerance : 3 * kind.tolerance};
      ExpectClose(y, expected, looser, "layer norm of " + std::to_string(width));
      EXPECT_TRUE(at::equal(x, exact_sum)) << "the sum";
      EXPECT_TRUE(at::equal(added, before));
    }
  }
}

TEST_F(FusedOpsTest, GegluIsThePlainOne) {
  for (const Case& kind : kCases) {
    for (const int64_t hidden : {1, 7, 16, 640}) {
      const at::Tensor both = Random({2, 9, 2 * hidden}, kind.dtype) * 4;
      ExpectClose(Geglu(both), plain::Geglu(Double(both)), kind, "GEGLU of " + std::to_string(hidden));
    }
  }
}

TEST_F(FusedOpsTest, LargeValuesAndNanComeOutAsFromThePlainForm) {
  const at::Tensor gate = at::tensor({-1e30F, -200.0F, -90.0F, -20.0F, 0.0F, 20.0F, 90.0F, 200.0F, 1e30F, -1e4F});
  const at::Tensor both = at::cat({at::ones_like(gate), gate}).unsqueeze(0);
  const at::Tensor y = Geglu(both).squeeze(0);
  EXPECT_TRUE(at::allclose(y, at::gelu(gate), 1e-6, 1e-6)) << y << at::gelu(gate);

  // A group norm whose scale is 0 puts out its bias: silu of these values alone.
  const at::Tensor x = ChannelsLast(at::randn({1, 10, 2, 2})), zeros = at::zeros({10});
  const at::Tensor of_bias = FusedGroupNorm(x, {}, zeros, gate, {1, 1e-5, true}).select(2, 0).select(2, 0).squeeze(0);
  EXPECT_TRUE(at::allclose(of_bias, at::silu(gate), 1e-6, 1e-6)) << of_bias << at::silu(gate);

  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor broken = at::ones({1, 3, 32}, dtype);
    broken[0][1][20] = std::numeric_limits<float>::quiet_NaN();
    const at::Tensor gated = Geglu(broken);
    EXPECT_TRUE(at::isnan(gated[0][1][4]).item<bool>());
    EXPECT_EQ(at::isnan(gated).sum().item<int64_t>(), 1);
    const at::Tensor pixels = broken.permute({0, 2, 1}).unsqueeze(-1);  // [1, 32, 3, 1]
    EXPECT_TRUE(at::isnan(FusedGroupNorm(ChannelsLast(pixels), {}, at::ones({32}, dtype), at::ones({32}, dtype),
                                         {32, 1e-5, true}))
                    .select(1, 20)
                    .all()
                    .item<bool>());
    const at::Tensor normed =
        AddLayerNorm(broken, at::ones_like(broken), at::ones({32}, dtype), at::ones({32}, dtype), 1e-5);
    EXPECT_EQ(at::isnan(normed).sum().item<int64_t>(), 32);
  }
}

TEST_F(FusedOpsTest, RowsAndThreadsDoNotChangeBytes) {
  const int threads = at::get_num_threads();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = ChannelsLast(Random({3, 48, 33, 31}, dtype)), shift = Random({3, 48}, dtype);
    const at::Tensor tokens = Random({3, 300, 48}, dtype), added = Random({3, 300, 48}, dtype);
    const at::Tensor weight = Random({48}, dtype), bias = Random({48}, dtype);
    const auto compute = [&](int64_t first, int64_t rows) {
      at::Tensor sum = tokens.narrow(0, first, rows).clone();
      return std::vector<at::Tensor>{
          FusedGroupNorm(x.narrow(0, first, rows), shift.narrow(0, first, rows), weight, bias, {4, 1e-5, true}),
          AddLayerNorm(sum, added.narrow(0, first, rows), weight, bias, 1e-5), Geglu(tokens.narrow(0, first, rows))};
    };
    at::set_num_threads(1);
    const std::vector<at::Tensor> together = compute(0, 3);
    at::set_num_threads(3);
    const std::vector<at::Tensor> by_threads = compute(0, 3), alone = compute(1, 1);
    for (size_t i = 0; i < together.size(); ++i) {
      EXPECT_TRUE(at::equal(together[i], by_threads[i])) << i;
      EXPECT_TRUE(at::equal(together[i].narrow(0, 1, 1), alone[i])) << i;
    }
  }
  at::set_num_threads(threads);
}

TEST_F(FusedOpsTest, TransposedWordsKeepTheirBits) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {16, 16}, {33, 20}, {40, 50}}) {
    const at::Tensor wide = at::randint(INT32_MIN, INT32_MAX, {rows, columns + 3}, at::kInt);
    const at::Tensor x = wide.narrow(1, 2, columns);
    at::Tensor y = at::zeros({columns, rows}, at::kInt);
    TransposeWords(static_cast<const uint32_t*>(x.const_data_ptr()), rows, columns, columns + 3,
                   static_cast<uint32_t*>(y.mutable_data_ptr()), rows);
    EXPECT_TRUE(at::equal(y, x.t())) << rows << " x " << columns;
  }
}

TEST_F(FusedOpsTest, WrongShapesAreRefused) {
  const at::Tensor x = ChannelsLast(at::randn({2, 8, 3, 3})), eight = at::randn({8}), seven = at::randn({7});
  EXPECT_THROW(FusedGroupNorm(x, {}, seven, eight, {4, 1e-5, true}), c10::Error);
  EXPECT_THROW(FusedGroupNorm(x, {}, eight, eight, {3, 1e-5, true}), c10::Error);
  EXPECT_THROW(FusedGroupNorm(x, eight, eight, eight, {4, 1e-5, true}), c10::Error);
  at::Tensor tokens = at::randn({2, 8});
  EXPECT_THROW(AddLayerNorm(tokens, at::randn({1, 8}), eight, eight, 1e-5), c10::Error);
  EXPECT_THROW(AddLayerNorm(tokens, at::randn({2, 8}), eight, seven, 1e-5), c10::Error);
  EXPECT_THROW(Geglu(at::randn({2, 7})), c10::Error);
}

}  // namespace
}  // namespace hotlora
