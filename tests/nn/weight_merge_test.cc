#include "src/nn/weight_merge.h"

#include <cstring>
#include <functional>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

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

// One clean weight and three deltas, of one form and one choice of dtypes.
struct MergeCase {
  MergeCase(Form form, c10::ScalarType delta, c10::ScalarType clean_dtype, c10::ScalarType live_dtype)
      : form(form),
        clean(Random(ShapeOf(form), clean_dtype)),
        live(Random(ShapeOf(form), live_dtype)),
        deltas({RandomDelta(form, 1, delta, 0.125), RandomDelta(form, 4, delta, 0.75),
                RandomDelta(form, 7, delta, 1 / 3.0)}),
        weighted({{&deltas[0], 1.0}, {&deltas[1], -0.6}, {&deltas[2], 0.3}}) {}

  Form form;
  at::Tensor clean, live;
  std::vector<LoraDelta> deltas;
  std::vector<WeightedDelta> weighted;
};

// Over all forms and the dtypes of delta, clean and live weight.
void ForEachCase(const std::function<void(MergeCase&)>& test) {
  for (const Form form : {Form::kLinear, Form::kConvolution, Form::kTucker}) {
    for (const c10::ScalarType delta : {at::kFloat, at::kHalf, at::kBFloat16}) {
      for (const c10::ScalarType clean : {at::kFloat, at::kHalf}) {
        for (const c10::ScalarType live : {at::kFloat, at::kHalf, at::kBFloat16}) {
          SCOPED_TRACE(testing::Message() << "form " << static_cast<int>(form) << ", delta " << delta << ", clean "
                                          << clean << ", live " << live);
          MergeCase one(form, delta, clean, live);
          test(one);
        }
      }
    }
  }
}

TEST(WeightMergeTest, EqualsTheDenseFormulaRoundedOnce) {
  ForEachCase([](MergeCase& c) {
    at::Tensor expected = c.clean.to(at::kDouble);
    for (const WeightedDelta& delta : c.weighted) {
      expected = expected + DenseChange(c.form, *delta.delta) * delta.weight;
    }
    MergeWeight(c.live, c.clean, c.weighted);
    const double largest = expected.abs().max().item<double>();
    // Half a step of live's dtype, and what float32 sums of some dozen terms lose.
    const at::Tensor allowed =
        expected.abs() * RoundingOf(c.live.scalar_type(), 0.5) + RoundingOf(at::kFloat, 16 * largest);
    const at::Tensor error = (c.live.to(at::kDouble) - expected).abs();
    EXPECT_TRUE((error <= allowed).all().item<bool>())
        << (error / allowed).max().item<double>() << " times what rounding explains";
  });
}

TEST(WeightMergeTest, RestoreIsByteEqualAndInPlace) {
  ForEachCase([](MergeCase& c) {
    at::Tensor loaded = at::empty_like(c.live);
    loaded.copy_(c.clean);
    const void* const address = c.live.data_ptr();
    const at::Tensor clean_before = c.clean.clone();
    MergeWeight(c.live, c.clean, c.weighted);
    EXPECT_FALSE(SameBytes(c.live, loaded));
    MergeWeight(c.live, c.clean, {});
    EXPECT_TRUE(SameBytes(c.live, loaded));
    MergeWeight(c.live, c.clean, c.weighted);
    const std::vector<WeightedDelta> absent = {{&c.deltas[0], 0.0}, {&c.deltas[1], -0.0}};
    MergeWeight(c.live, c.clean, absent);
    EXPECT_TRUE(SameBytes(c.live, loaded)) << "weight 0 is absent";
    EXPECT_EQ(c.live.data_ptr(), address);
    EXPECT_TRUE(SameBytes(c.clean, clean_before));
  });
}

TEST(WeightMergeTest, DoesNotDependOnWhatWasMergedBefore) {
  ForEachCase([](MergeCase& c) {
    MergeWeight(c.live, c.clean, c.weighted);
    const at::Tensor first = c.live.clone();
    const std::vector<WeightedDelta> other = {{&c.deltas[2], 10.0}};
    for (int i = 0; i < 10; ++i) {
      MergeWeight(c.live, c.clean, other);
      MergeWeight(c.live, c.clean, {});
      MergeWeight(c.live, c.clean, c.weighted);
    }
    EXPECT_TRUE(SameBytes(c.live, first));
  });
}

TEST(WeightMergeTest, WritesThroughAnyLayout) {
  const LoraDelta delta = RandomDelta(Form::kConvolution, 3, at::kFloat, 1.0);
  const std::vector<WeightedDelta> weighted = {{&delta, 0.5}};
  const at::Tensor clean = Random({24, 16, 3, 3}, at::kFloat);
  at::Tensor plain = at::empty_like(clean);
  at::Tensor last = at::empty_like(clean, at::MemoryFormat::ChannelsLast);
  MergeWeight(plain, clean, weighted);
  MergeWeight(last, clean, weighted);
  EXPECT_TRUE(at::equal(plain, last));
}

TEST(WeightMergeTest, ThrowsWhereShapesDisagree) {
  const LoraDelta delta = RandomDelta(Form::kLinear, 3, at::kFloat, 1.0);
  const std::vector<WeightedDelta> weighted = {{&delta, 1.0}};
  at::Tensor live = at::zeros({24, 17});
  EXPECT_THROW(MergeWeight(live, at::zeros({24, 16}), {}), c10::Error);
  EXPECT_THROW(MergeWeight(live, at::zeros({24, 17}), weighted), c10::Error);
}

}  // namespace
}  // namespace hotlora
