#include "src/nn/weight_merge.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

enum class Form {
  kLinear,
  kConvolution,
  kTucker,
  kLoha,
  kConvolutionLoha,
  kTuckerLoha,
  kLokr,
  kLokrOfProducts,
  kConvolutionLokr,
  kTuckerLokr,
  kGlora,
  kConvolutionGlora,
  kRotation,
  kConvolutionRotation,
  kFull,
  kFullConvolution,
};

bool IsLinear(Form form) {
  return form == Form::kLinear || form == Form::kLoha || form == Form::kLokr || form == Form::kLokrOfProducts ||
         form == Form::kGlora || form == Form::kRotation || form == Form::kFull;
}

std::vector<int64_t> ShapeOf(Form form) {
  return IsLinear(form) ? std::vector<int64_t>{24, 16} : std::vector<int64_t>{24, 16, 3, 3};
}

at::Tensor Random(at::IntArrayRef shape, c10::ScalarType dtype, double size = 1.0) {
  static at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(7);
  return (at::randn(shape, generator, at::TensorOptions(at::kDouble)) * size).to(dtype);
}

LowRank RandomProduct(int64_t out, int64_t rank, int64_t columns, c10::ScalarType dtype, bool tucker = false) {
  return {Random({rank, columns}, dtype), Random({out, rank}, dtype),
          tucker ? Random({rank, rank, 3, 3}, dtype) : at::Tensor()};
}

ModuleDelta RandomDelta(Form form, int64_t rank, c10::ScalarType dtype, double scale) {
  ModuleDelta delta;
  delta.scale = scale;
  const auto product = [&](int64_t columns, bool tucker = false) {
    return RandomProduct(24, rank, columns, dtype, tucker);
  };
  switch (form) {
    case Form::kLinear:
      delta.change = product(16);
      break;
    case Form::kConvolution:
      delta.change = product(16 * 9);
      break;
    case Form::kTucker:
      delta.change = product(16, true);
      break;
    case Form::kLoha:
      delta.change = Hadamard{product(16), product(16)};
      break;
    case Form::kConvolutionLoha:
      delta.change = Hadamard{product(16 * 9), product(16 * 9)};
      break;
    case Form::kTuckerLoha:
      delta.change = Hadamard{product(16, true), product(16, true)};
      break;
    case Form::kLokr:
      delta.change = Kronecker{Random({6, 2}, dtype), Random({4, 8}, dtype)};
      break;
    case Form::kLokrOfProducts:
      delta.change = Kronecker{RandomProduct(6, rank, 2, dtype), RandomProduct(4, rank, 8, dtype)};
      break;
    case Form::kConvolutionLokr:
      delta.change = Kronecker{Random({6, 2}, dtype), RandomProduct(4, rank, 8 * 9, dtype)};
      break;
    case Form::kTuckerLokr:
      delta.change = Kronecker{RandomProduct(6, rank, 2, dtype), RandomProduct(4, rank, 8, dtype, true)};
      break;
    case Form::kGlora:
    case Form::kConvolutionGlora:
      delta.change = GeneralizedLowRank{product(form == Form::kGlora ? 16 : 16 * 9),
                                        {Random({rank, 16}, dtype, 0.2), Random({16, rank}, dtype, 0.2), {}}};
      break;
    case Form::kRotation:
      delta.change = Rotation{Random({3, 8, 8}, dtype, 0.3), {}};
      break;
    case Form::kConvolutionRotation:
      delta.change = Rotation{Random({6, 4, 4}, dtype, 0.3), Random({24}, dtype)};
      break;
    default:
      delta.change = FullDifference{Random(ShapeOf(form), dtype)};
      break;
  }
  return delta;
}

at::Tensor Dense(const LowRank& factors, at::IntArrayRef shape) {
  const at::Tensor up = factors.up.to(at::kDouble), down = factors.down.to(at::kDouble);
  return factors.mid.defined() ? at::einsum("om,mnhw,ni->oihw", {up, factors.mid.to(at::kDouble), down})
                               : at::mm(up, down).reshape(shape);
}

at::Tensor Dense(const Kronecker::Factor& factor, at::IntArrayRef shape) {
  const auto* const factors = std::get_if<LowRank>(&factor);
  return factors != nullptr ? Dense(*factors, shape) : std::get<at::Tensor>(factor).to(at::kDouble).reshape(shape);
}

// W with its outputs turned and rescaled, by one matrix of the blocks.
at::Tensor Turned(const Rotation& rotation, const at::Tensor& weight) {
  const at::Tensor turn = rotation.turn.to(at::kDouble);
  std::vector<at::Tensor> blocks;
  for (int64_t b = 0; b < turn.size(0); ++b) {
    blocks.push_back(at::eye(turn.size(1), at::kDouble) + turn[b].t());
  }
  at::Tensor rows = at::block_diag(blocks).mm(weight.reshape({weight.size(0), -1}));
  if (rotation.rescale.defined()) {
    rows = at::diag(rotation.rescale.to(at::kDouble)).mm(rows);
  }
  return rows.reshape(weight.sizes());
}

// The formulas of lora_delta.h in float64, by LibTorch's own einsum and kron. `weight` is the running one.
at::Tensor DenseChange(Form form, const ModuleDelta& delta, const at::Tensor& weight) {
  const std::vector<int64_t> shape = ShapeOf(form);
  at::Tensor change;
  if (const auto* factors = std::get_if<LowRank>(&delta.change)) {
    change = Dense(*factors, shape);
  } else if (const auto* hadamard = std::get_if<Hadamard>(&delta.change)) {
    change = Dense(hadamard->first, shape) * Dense(hadamard->second, shape);
  } else if (const auto* kronecker = std::get_if<Kronecker>(&delta.change)) {
    const int64_t kernel = IsLinear(form) ? 1 : 3;
    // at::kron fails with what einsum leaves permuted.
    change =
        at::kron(Dense(kronecker->first, {6, 2, 1, 1}), Dense(kronecker->second, {4, 8, kernel, kernel}).contiguous());
  } else if (const auto* generalized = std::get_if<GeneralizedLowRank>(&delta.change)) {
    change =
        Dense(generalized->added, shape) + at::einsum("oi...,ij->oj...", {weight, Dense(generalized->mixed, {16, 16})});
  } else if (const auto* rotation = std::get_if<Rotation>(&delta.change)) {
    change = Turned(*rotation, weight) - weight;
  } else {
    change = std::get<FullDifference>(delta.change).value.to(at::kDouble);
  }
  return change.reshape(shape) * delta.scale;
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
  std::vector<ModuleDelta> deltas;
  std::vector<WeightedDelta> weighted;
};

// Over all forms and the dtypes of delta, clean and live weight.
void ForEachCase(const std::function<void(MergeCase&)>& test) {
  for (int number = 0; number <= static_cast<int>(Form::kFullConvolution); ++number) {
    const Form form = static_cast<Form>(number);
    for (const c10::ScalarType delta : {at::kFloat, at::kHalf, at::kBFloat16}) {
      for (const c10::ScalarType clean : {at::kFloat, at::kHalf}) {
        for (const c10::ScalarType live : {at::kFloat, at::kHalf, at::kBFloat16}) {
          SCOPED_TRACE(testing::Message()
                       << "form " << number << ", delta " << delta << ", clean " << clean << ", live " << live);
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
      expected = expected + DenseChange(c.form, *delta.delta, expected) * delta.weight;
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

// W' = m o V / |V| over all axes but the magnitude's, in float64.
at::Tensor Renormalised(const at::Tensor& value, const at::Tensor& magnitude) {
  const bool outputs = magnitude.size(0) == value.size(0);
  const at::Tensor flat = outputs ? value.reshape({value.size(0), -1})
                                  : value.transpose(0, 1).reshape({value.size(1), -1});  // a row for each norm
  std::vector<int64_t> axis(static_cast<size_t>(value.dim()), 1);
  axis[outputs ? 0 : 1] = magnitude.numel();
  return value * (magnitude.to(at::kDouble).reshape(axis) / flat.square().sum(1).sqrt().reshape(axis));
}

// A plain change, a DoRA at 0.6, another plain change, in every form and over either axis.
TEST(WeightMergeTest, DoraMapsTheRunningWeight) {
  for (const bool outputs : {true, false}) {
    ForEachCase([outputs](MergeCase& c) {
      const std::vector<int64_t> axis = outputs ? std::vector<int64_t>{24, 1, 1} : std::vector<int64_t>{1, 16, 1};
      c.deltas[1].magnitude = Random(axis, at::kFloat);
      c.weighted[1].weight = 0.6;
      const at::Tensor clean = c.clean.to(at::kDouble);
      const at::Tensor first = clean + DenseChange(c.form, c.deltas[0], clean);
      const at::Tensor change = DenseChange(c.form, c.deltas[1], first);
      at::Tensor scaled = Renormalised(first + 0.6 * change, c.deltas[1].magnitude);
      scaled = scaled + DenseChange(c.form, c.deltas[2], scaled) * 0.3;
      at::Tensor interpolated = first + 0.6 * (Renormalised(first + change, c.deltas[1].magnitude) - first);
      interpolated = interpolated + DenseChange(c.form, c.deltas[2], interpolated) * 0.3;
      for (const auto& [dora, expected] :
           {std::pair{DoraWeighting::kScaledChange, scaled}, std::pair{DoraWeighting::kInterpolated, interpolated}}) {
        MergeWeight(c.live, c.clean, c.weighted, dora);
        const double largest = std::max(expected.abs().max().item<double>(), first.abs().max().item<double>());
        const at::Tensor allowed =
            expected.abs() * RoundingOf(c.live.scalar_type(), 0.5) + RoundingOf(at::kFloat, 32 * largest);
        const at::Tensor error = (c.live.to(at::kDouble) - expected).abs();
        EXPECT_TRUE((error <= allowed).all().item<bool>())
            << (error / allowed).max().item<double>() << " times what rounding explains";
      }
    });
  }
}

TEST(WeightMergeTest, DoraOfWeightZeroIsAbsentAndOfZeroNormIsZero) {
  ModuleDelta delta = RandomDelta(Form::kLinear, 3, at::kFloat, 1.0);
  delta.magnitude = Random({24, 1, 1}, at::kFloat);
  const at::Tensor clean = Random({24, 16}, at::kFloat);
  at::Tensor live = at::empty_like(clean);
  for (const DoraWeighting dora : {DoraWeighting::kScaledChange, DoraWeighting::kInterpolated}) {
    MergeWeight(live, clean, std::vector<WeightedDelta>{{&delta, 0.0}}, dora);
    EXPECT_TRUE(SameBytes(live, clean));
  }
  delta.change = FullDifference{-clean};
  MergeWeight(live, clean, std::vector<WeightedDelta>{{&delta, 1.0}});
  EXPECT_TRUE(live.eq(0).all().item<bool>());
}

TEST(WeightMergeTest, DorasDoNotCommute) {
  ModuleDelta a = RandomDelta(Form::kLinear, 3, at::kFloat, 1.0), b = RandomDelta(Form::kLokr, 3, at::kFloat, 1.0);
  a.magnitude = Random({24, 1, 1}, at::kFloat);
  b.magnitude = Random({1, 16, 1}, at::kFloat);
  const at::Tensor clean = Random({24, 16}, at::kFloat);
  at::Tensor ab = at::empty_like(clean), ba = at::empty_like(clean);
  MergeWeight(ab, clean, std::vector<WeightedDelta>{{&a, 1.0}, {&b, 1.0}});
  MergeWeight(ba, clean, std::vector<WeightedDelta>{{&b, 1.0}, {&a, 1.0}});
  EXPECT_GT((ab - ba).abs().max().item<double>(), 1e-3);
}

TEST(WeightMergeTest, WritesThroughAnyLayout) {
  const ModuleDelta delta = RandomDelta(Form::kConvolution, 3, at::kFloat, 1.0);
  const std::vector<WeightedDelta> weighted = {{&delta, 0.5}};
  const at::Tensor clean = Random({24, 16, 3, 3}, at::kFloat);
  at::Tensor plain = at::empty_like(clean);
  at::Tensor last = at::empty_like(clean, at::MemoryFormat::ChannelsLast);
  MergeWeight(plain, clean, weighted);
  MergeWeight(last, clean, weighted);
  EXPECT_TRUE(at::equal(plain, last));
}

TEST(WeightMergeTest, RotationOfInputs) {
  for (const int64_t blocks : {4, 1}) {  // one each, one for all
    ModuleDelta delta;
    Rotation rotation{Random({blocks, 4, 4}, at::kFloat, 0.3), {}};
    rotation.of_inputs = true;
    delta.change = rotation;
    const at::Tensor clean = Random({24, 16}, at::kFloat);
    std::vector<at::Tensor> turns;
    for (int64_t b = 0; b < 4; ++b) {
      turns.push_back(rotation.turn[blocks == 1 ? 0 : b].to(at::kDouble));
    }
    const at::Tensor wide = clean.to(at::kDouble);
    const at::Tensor expected = wide + 0.5 * wide.mm(at::block_diag(turns).t());
    at::Tensor live = at::empty_like(clean);
    MergeWeight(live, clean, std::vector<WeightedDelta>{{&delta, 0.5}});
    EXPECT_LT((live.to(at::kDouble) - expected).abs().max().item<double>(), 1e-5);
  }
}

TEST(WeightMergeTest, BiasesAndNormsChangeByADifference) {
  ModuleDelta delta;
  delta.change = FullDifference{at::tensor({1.0f, -2.0f, 0.5f})};
  const at::Tensor clean = at::tensor({0.25f, 1.0f, -1.0f});
  at::Tensor live = at::empty_like(clean);
  MergeWeight(live, clean, std::vector<WeightedDelta>{{&delta, -0.5}});
  EXPECT_TRUE(at::equal(live, at::tensor({-0.25f, 2.0f, -1.25f})));
}

TEST(WeightMergeTest, ThrowsWhereShapesDisagree) {
  at::Tensor live = at::zeros({24, 17});
  EXPECT_THROW(MergeWeight(live, at::zeros({24, 16}), {}), c10::Error);
  for (const Form form : {Form::kLinear, Form::kTucker, Form::kLoha, Form::kLokr, Form::kGlora, Form::kFull}) {
    const ModuleDelta other = RandomDelta(form, 3, at::kFloat, 1.0);
    EXPECT_THROW(MergeWeight(live, at::zeros({24, 17}), std::vector<WeightedDelta>{{&other, 1.0}}), c10::Error);
  }
  ModuleDelta dora = RandomDelta(Form::kLinear, 3, at::kFloat, 1.0);
  dora.magnitude = at::ones({1, 17, 1});
  at::Tensor narrow = at::zeros({24, 16});
  EXPECT_THROW(MergeWeight(narrow, at::zeros({24, 16}), std::vector<WeightedDelta>{{&dora, 1.0}}), c10::Error);
}

}  // namespace
}  // namespace hotlora
