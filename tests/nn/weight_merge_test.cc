#include "src/nn/weight_merge.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace hotlora {
namespace {

enum class Form { kLinear, kConvolution, kTucker };

std::vector<int64_t> ShapeOf(Form form) {
  return form == Form::kLinear ? std::vector<int64_t>{24, 16} : std::vector<int64_t>{24, 16, 3, 3};
}

at::Tensor Random(at::IntArrayRef shape, c10::ScalarType dtype, double size = 1.0) {
  static at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(7);
  return (at::randn(shape, generator, at::TensorOptions(at::kDouble)) * size).to(dtype);
}

LoraDelta RandomDelta(Form form, int64_t rank, c10::ScalarType dtype, double scale) {
  LoraDelta delta;
  delta.scale = scale;
  delta.up = Random({24, rank}, dtype);
  delta.down = Random({rank, form == Form::kConvolution ? 16 * 9 : 16}, dtype);
  if (form == Form::kTucker) {
    delta.mid = Random({rank, rank, 3, 3}, dtype);
  }
  return delta;
}

// The formulas of lora_delta.h, element by element in float64.
at::Tensor DenseChange(Form form, const LoraDelta& delta) {
  const at::Tensor up = delta.up.to(at::kDouble), down = delta.down.to(at::kDouble);
  at::Tensor change;
  if (form == Form::kTucker) {
    change = at::einsum("om,mnhw,ni->oihw", {up, delta.mid.to(at::kDouble), down});
  } else {
    change = at::mm(up, down).reshape(ShapeOf(form));
  }
  return change * delta.scale;
}

bool SameBytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.contiguous().data_ptr(), b.contiguous().data_ptr(), a.nbytes()) == 0;
}

// The largest distance of a dtype's neighbours around values of this size.
double RoundingOf(c10::ScalarType dtype, double size) {
  const double epsilon = dtype == at::kFloat ? 1.2e-7 : dtype == at::kHalf ? 9.8e-4 : 7.9e-3;
  return epsilon * size;
}

using Case = std::tuple<Form, c10::ScalarType, c10::ScalarType, c10::ScalarType>;

// Over forms and the dtypes of delta, clean and live weight.
class WeightMergeTest : public testing::TestWithParam<Case> {
 protected:
  const Form form_ = std::get<0>(GetParam());
  const c10::ScalarType delta_dtype_ = std::get<1>(GetParam());
  const at::Tensor clean_ = Random(ShapeOf(form_), std::get<2>(GetParam()));
  at::Tensor live_ = Random(ShapeOf(form_), std::get<3>(GetParam()));
  const std::vector<LoraDelta> deltas_ = {RandomDelta(form_, 1, delta_dtype_, 0.125),
                                          RandomDelta(form_, 4, delta_dtype_, 0.75),
                                          RandomDelta(form_, 7, delta_dtype_, 1 / 3.0)};
  const std::vector<WeightedDelta> weighted_ = {
      {&deltas_[0], 1.0}, {&deltas_[1], -0.6}, {&deltas_[2], 0.3}};
};

TEST_P(WeightMergeTest, EqualsTheDenseFormulaRoundedOnce) {
  at::Tensor expected = clean_.to(at::kDouble);
  for (const WeightedDelta& delta : weighted_) {
    expected = expected + DenseChange(form_, *delta.delta) * delta.weight;
  }
  MergeWeight(live_, clean_, weighted_);
  const double largest = expected.abs().max().item<double>();
  // Half a step of live's dtype, and what float32 sums of some dozen terms lose.
  const at::Tensor allowed = expected.abs() * RoundingOf(live_.scalar_type(), 0.5) +
                             RoundingOf(at::kFloat, 16 * largest);
  const at::Tensor error = (live_.to(at::kDouble) - expected).abs();
  EXPECT_TRUE((error <= allowed).all().item<bool>())
      << (error / allowed).max().item<double>() << " times what rounding explains";
}

TEST_P(WeightMergeTest, RestoreIsByteEqualAndInPlace) {
  at::Tensor loaded = at::empty_like(live_);
  loaded.copy_(clean_);
  const void* const address = live_.data_ptr();
  const at::Tensor clean_before = clean_.clone();
  MergeWeight(live_, clean_, weighted_);
  EXPECT_FALSE(SameBytes(live_, loaded));
  MergeWeight(live_, clean_, {});
  EXPECT_TRUE(SameBytes(live_, loaded));
  const std::vector<WeightedDelta> absent = {{&deltas_[0], 0.0}, {&deltas_[1], -0.0}};
  MergeWeight(live_, clean_, absent);
  EXPECT_TRUE(SameBytes(live_, loaded)) << "weight 0 is absent";
  EXPECT_EQ(live_.data_ptr(), address);
  EXPECT_TRUE(SameBytes(clean_, clean_before));
}

TEST_P(WeightMergeTest, DoesNotDependOnWhatWasMergedBefore) {
  MergeWeight(live_, clean_, weighted_);
  const at::Tensor first = live_.clone();
  const std::vector<WeightedDelta> other = {{&deltas_[2], 10.0}};
  for (int i = 0; i < 20; ++i) {
    MergeWeight(live_, clean_, other);
    MergeWeight(live_, clean_, i % 2 == 0 ? absl::Span<const WeightedDelta>() : weighted_);
  }
  EXPECT_TRUE(SameBytes(live_, first));
}

INSTANTIATE_TEST_SUITE_P(
    Forms, WeightMergeTest,
    testing::Combine(testing::Values(Form::kLinear, Form::kConvolution, Form::kTucker),
                     testing::Values(at::kFloat, at::kHalf, at::kBFloat16),
                     testing::Values(at::kFloat, at::kHalf),
                     testing::Values(at::kFloat, at::kHalf, at::kBFloat16)));

TEST(WeightMergeLayoutTest, WritesThroughAnyLayout) {
  const LoraDelta delta = RandomDelta(Form::kConvolution, 3, at::kFloat, 1.0);
  const std::vector<WeightedDelta> weighted = {{&delta, 0.5}};
  const at::Tensor clean = Random({24, 16, 3, 3}, at::kFloat);
  at::Tensor plain = at::empty_like(clean);
  at::Tensor last = at::empty_like(clean, at::MemoryFormat::ChannelsLast);
  MergeWeight(plain, clean, weighted);
  MergeWeight(last, clean, weighted);
  EXPECT_TRUE(at::equal(plain, last));
}

TEST(WeightMergeLayoutTest, ThrowsWhereShapesDisagree) {
  const LoraDelta delta = RandomDelta(Form::kLinear, 3, at::kFloat, 1.0);
  const std::vector<WeightedDelta> weighted = {{&delta, 1.0}};
  at::Tensor live = at::zeros({24, 17});
  EXPECT_THROW(MergeWeight(live, at::zeros({24, 16}), {}), c10::Error);
  EXPECT_THROW(MergeWeight(live, at::zeros({24, 17}), weighted), c10::Error);
}

}  // namespace
}  // namespace hotlora
