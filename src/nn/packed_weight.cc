#include "src/nn/packed_weight.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <type_traits>
#include <vector>

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/equal.h>
#include <c10/util/Exception.h>

#include "src/nn/fused_kernels.h"
#include "src/nn/widen.h"
#include "src/tensor/parallel_for.h"
#include "src/tensor/threads_for.h"

namespace hotlora {
namespace {

// The first that divides the number of outputs is taken: those with the fastest products first.
constexpr int64_t kBlocks[] = {64, 48, 80, 32, 16};

constexpr int64_t kCopiedValues = int64_t{64} << 10;

int64_t ValuesOfOperand(c10::ScalarType dtype) { return static_cast<int64_t>(sizeof(float)) / c10::elementSize(dtype); }

const uint16_t* Bits(const at::Tensor& tensor) { return static_cast<const uint16_t*>(tensor.const_data_ptr()); }

// Whether equal places in the memory of both are equal places in their shape, on the CPU.
bool LieAlike(const at::Tensor& a, const at::Tensor& b) {
  return a.is_cpu() && b.is_cpu() && a.sizes() == b.sizes() && a.is_contiguous() && b.is_contiguous();
}

// to = from, which has its shape.
void CopyValues(const at::Tensor& from, at::Tensor& to) {
  const int64_t count = to.numel();
  const c10::ScalarType from_type = from.scalar_type(), to_type = to.scalar_type();
  if (!LieAlike(from, to)) {
    to.copy_(from);
  } else if (from_type == to_type) {
    std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), to.nbytes());
  } else if (from_type == at::kHalf && to_type == at::kFloat) {
    WidenHalf(Bits(from), to.mutable_data_ptr<float>(), count);
  } else if (from_type == at::kBFloat16 && to_type == at::kFloat) {
    WidenBfloat16(Bits(from), to.mutable_data_ptr<float>(), count);
  } else if (from_type == at::kFloat && to_type == at::kHalf) {
    NarrowToHalf(from.const_data_ptr<float>(), static_cast<uint16_t*>(to.mutable_data_ptr()), count);
  } else if (from_type == at::kFloat && to_type == at::kBFloat16) {
    NarrowToBfloat16(from.const_data_ptr<float>(), static_cast<uint16_t*>(to.mutable_data_ptr()), count);
  } else {
    to.copy_(from);
  }
}

// plain [rows, in, ...] as [rows, height * width, in] in memory, in the weight's dtype or in float32.
at::Tensor InWindowOrder(const at::Tensor& plain, const at::Tensor& weight) {
  const int64_t window = weight.size(4);
  const at::Tensor values =
      window == 1 ? plain.contiguous() : plain.reshape({plain.size(0), -1, window}).transpose(1, 2).contiguous();
  if (values.scalar_type() == weight.scalar_type() || values.scalar_type() == at::kFloat) {
    return values;
  }
  at::Tensor wide = at::empty(values.sizes(), values.options().dtype(at::kFloat));
  CopyValues(values, wide);
  return wide;
}

// Whether the CPU has what makes these products fast. oneDNN has them for more CPUs: it emulates bfloat16.
#if defined(__x86_64__)
bool IsFast(c10::ScalarType dtype) {
  return dtype == at::kFloat ? __builtin_cpu_supports("avx2") != 0 : __builtin_cpu_supports("avx512bf16") != 0;
}
#else
bool IsFast(c10::ScalarType) { return false; }
#endif

// Whether LibTorch multiplies packed values of that dtype: tried with one operand. In bfloat16 it throws if it was
// built without oneDNN's kernels or if ONEDNN_MAX_CPU_ISA forbids their instructions; what oneDNN throws is not
// c10::Error. In float32 it then uses another product, which is slower, and does not say so. On CPUs with AMX the
// release makes code, which it can use from then on without asking for memory.
template <typename T>
bool IsOffered() {
  constexpr bool kPairs = !std::is_same_v<T, float>;
  constexpr int64_t kOperand = kPairs ? 2 : 1, kOutputs = 16;
  std::array<T, kOutputs * kOperand> twos;
  std::array<float, kOutputs> sums = {};
  twos.fill(T(2.0F));
  const std::array<T, 2> three_and_nothing = {T(3.0F), T(0.0F)};
  try {
    at::native::cpublas::brgemm(1, kOutputs, kOperand, kOperand, kOutputs, kOutputs, /*add_C=*/false,
                                three_and_nothing.data(), twos.data(), sums.data(), kPairs);
    at::native::cpublas::brgemm_release(kPairs);
  } catch (const std::exception&) {
    return false;
  }
  return std::all_of(sums.begin(), sums.end(), [](float sum) { return sum == 6.0F; });
}

// A plain weight, on all threads.
void CopyPlain(const at::Tensor& plain, const at::Tensor& weight) {
  at::Tensor to = weight;
  if (!LieAlike(plain, to)) {
    to.copy_(plain);
    return;
  }
  const at::Tensor from_values = plain.view({-1}), to_values = to.view({-1});
  ParallelFor(0, to.numel(), kValuesWorthSharing, [&](int64_t begin, int64_t end) {
    at::Tensor part = to_values.narrow(0, begin, end - begin);
    CopyValues(from_values.narrow(0, begin, end - begin), part);
  });
}

}  // namespace

bool HasPackedProducts(c10::ScalarType dtype) {
  if (dtype == at::kFloat) {
    static const bool offered = IsFast(dtype) && IsOffered<float>();
    return offered;
  }
  if (dtype == at::kBFloat16) {
    static const bool offered = IsFast(dtype) && IsOffered<c10::BFloat16>();
    return offered;
  }
  return false;
}

at::Tensor EmptyPacked(at::IntArrayRef shape, const at::TensorOptions& options, int64_t stacked) {
  const c10::ScalarType dtype = c10::typeMetaToScalarType(options.dtype());
  if (!options.device().is_cpu() || !HasPackedProducts(dtype)) {
    return {};
  }
  const int64_t out = shape[0], in = shape[1], window = c10::multiply_integers(shape.slice(2));
  const int64_t operand = ValuesOfOperand(dtype);
  const auto* const block =
      std::find_if(std::begin(kBlocks), std::end(kBlocks), [out](int64_t size) { return out % size == 0; });
  if (block == std::end(kBlocks) || in % operand != 0) {
    return {};
  }
  const int64_t b = *block;
  return at::empty_strided({stacked * out / b, b, in / operand, operand, window},
                           {b * in * window, operand, b * operand, 1, b * in}, options);
}

void CopyRows(const at::Tensor& plain, int64_t first, const at::Tensor& weight) {
  if (!IsPacked(weight)) {
    at::Tensor rows = weight.narrow(0, first, plain.size(0));
    CopyValues(plain, rows);
    return;
  }
  const int64_t count = plain.size(0), block_rows = weight.size(1);
  TORCH_CHECK(first >= 0 && first % kRowStep == 0 && count % kRowStep == 0 && first + count <= OutputsOf(weight), count,
              " rows of a packed weight of ", OutputsOf(weight), " from ", first);
  TORCH_CHECK(plain.numel() * OutputsOf(weight) == weight.numel() * count, plain.sizes(), " for rows of ",
              weight.sizes());
  const at::Tensor values = InWindowOrder(plain, weight);
  const int64_t words = weight.size(2) * weight.size(4);  // of an output
  auto* const words_of_weight = static_cast<uint32_t*>(weight.mutable_data_ptr());
  const bool round = values.scalar_type() != weight.scalar_type();  // to bfloat16
  std::vector<uint32_t> rounded(static_cast<size_t>(round ? kRowStep * words : 0));
  for (int64_t row = 0; row < count; row += kRowStep) {
    const uint32_t* from = static_cast<const uint32_t*>(values.const_data_ptr()) + row * words;
    if (round) {
      NarrowToBfloat16(values.const_data_ptr<float>() + row * words * 2, reinterpret_cast<uint16_t*>(rounded.data()),
                       kRowStep * words * 2);
      from = rounded.data();
    }
    const int64_t block = (first + row) / block_rows;
    TransposeWords(from, kRowStep, words, words,
                   words_of_weight + block * block_rows * words + (first + row) % block_rows, block_rows);
  }
}

void CopyWeight(const at::Tensor& plain, const at::Tensor& weight) {
  if (!IsPacked(weight)) {
    CopyPlain(plain, weight);
    return;
  }
  TORCH_CHECK(IsOfShape(weight, plain.sizes()), plain.sizes(), " for a weight ", weight.sizes());
  const at::Tensor from = plain.contiguous();
  const int64_t step_values = std::max<int64_t>(1, from.numel() / std::max<int64_t>(1, from.size(0)) * kRowStep);
  const int64_t grain = std::max<int64_t>(1, kValuesWorthSharing / step_values);
  ParallelFor(0, from.size(0) / kRowStep, grain, [&](int64_t begin, int64_t end) {
    const int64_t steps = std::max<int64_t>(1, kCopiedValues / step_values);  // so that a copy stays in the cache
    for (int64_t step = begin; step < end; step += steps) {
      const int64_t rows = std::min(steps, end - step) * kRowStep;
      CopyRows(from.narrow(0, step * kRowStep, rows), step * kRowStep, weight);
    }
  });
}

bool IsCopyOf(const at::Tensor& weight, const at::Tensor& plain) {
  if (!IsPacked(weight)) {
    return at::equal(weight, plain.to(weight.dtype()));
  }
  const at::Tensor copy = at::empty_like(weight);
  CopyWeight(plain, copy);
  const auto in_memory = [](const at::Tensor& tensor) { return tensor.as_strided({tensor.numel()}, {1}); };
  return at::equal(in_memory(weight), in_memory(copy));
}

}  // namespace hotlora
