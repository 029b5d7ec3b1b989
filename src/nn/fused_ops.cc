#include "src/nn/fused_ops.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/record_function.h>

#include "src/nn/fused_kernels.h"
#include "src/tensor/parallel_for.h"
#include "src/tensor/threads_for.h"

namespace hotlora {
namespace {

constexpr int64_t kPiece = 16384;   // values of a group norm whose sums are taken together, or more:
constexpr int64_t kMaxPieces = 64;  // a row has at most so many pieces

bool HasKernel(std::initializer_list<at::Tensor> tensors) {
  const at::Tensor& first = *tensors.begin();
  const at::ScalarType dtype = first.scalar_type();
  return first.is_cpu() && first.numel() > 0 && (dtype == at::kFloat || dtype == at::kBFloat16) &&
         std::all_of(tensors.begin(), tensors.end(),
                     [&](const at::Tensor& tensor) { return tensor.scalar_type() == dtype; });
}

// Calls f with a value of the C++ type of `dtype`, which has a kernel.
#define HOTLORA_DISPATCH(dtype, name, ...) \
  AT_DISPATCH_SWITCH(dtype, name,          \
                     AT_DISPATCH_CASE(at::kFloat, __VA_ARGS__) AT_DISPATCH_CASE(at::kBFloat16, __VA_ARGS__))

// Group norm in two passes over pieces of a row, whose number depends on the shape alone: sums of the pieces, then the
// result.
template <typename T>
void NormalizeGroups(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& weight, const at::Tensor& bias,
                     const GroupNormOptions& options, at::Tensor& y) {
  const int64_t rows = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3), groups = options.groups;
  const int64_t piece = std::max<int64_t>({1, kPiece / channels, (pixels + kMaxPieces - 1) / kMaxPieces});  // pixels
  const int64_t pieces = (pixels + piece - 1) / piece;
  const T* const from = x.const_data_ptr<T>();
  T* const to = y.mutable_data_ptr<T>();
  const T* const weights = weight.const_data_ptr<T>();
  const T* const biases = bias.const_data_ptr<T>();
  std::vector<double> sums(rows * pieces * 2 * groups);
  // Calls work(row, its piece, the piece's first value in x, its pixels, `scratch` floats) for all pieces.
  const auto for_pieces = [&](int64_t scratch, const auto& work) {
    ParallelFor(0, rows * pieces, std::max<int64_t>(1, kValuesWorthSharing / (piece * channels)),
                [&](int64_t begin, int64_t end) {
                  std::vector<float> floats(scratch, 0.0F);
                  for (int64_t task = begin; task < end; ++task) {
                    const int64_t row = task / pieces, first = task % pieces * piece;
                    work(row, task, (row * pixels + first) * channels, std::min(piece, pixels - first), floats.data());
                  }
                });
  };
  const auto copy_shift = [&](int64_t row, float* to_floats) {
    if (shift.defined()) {
      const T* const own = shift.const_data_ptr<T>() + row * shift.stride(0);
      std::copy(own, own + channels, to_floats);
    }
  };
  for_pieces(3 * channels, [&](int64_t row, int64_t task, int64_t offset, int64_t count, float* floats) {
    copy_shift(row, floats);
    SumGroups(from + offset, floats, count, channels, groups, floats + channels, sums.data() + task * 2 * groups);
  });

  const int64_t group_channels = channels / groups;
  const auto values = static_cast<double>(pixels * group_channels);
  std::vector<float> factors(rows * 2 * channels, 0.0F);  // each row's scales, then its shifts
  for (int64_t row = 0; row < rows; ++row) {
    float* const scales = factors.data() + row * 2 * channels;
    float* const shifts = scales + channels;
    copy_shift(row, shifts);
    for (int64_t group = 0; group < groups; ++group) {
      double sum = 0.0, squares = 0.0;
      for (int64_t task = row * pieces; task < (row + 1) * pieces; ++task) {
        sum += sums[2 * (task * groups + group)];
        squares += sums[2 * (task * groups + group) + 1];
      }
      const double mean = sum / values;
      const double inverse = 1.0 / std::sqrt(std::max(squares / values - mean * mean, 0.0) + options.epsilon);
      for (int64_t c = group * group_channels; c < (group + 1) * group_channels; ++c) {
        const double scale = inverse * static_cast<float>(weights[c]);
        scales[c] = static_cast<float>(scale);
        shifts[c] = static_cast<float>((shifts[c] - mean) * scale + static_cast<float>(biases[c]));
      }
    }
  }
  for_pieces(0, [&](int64_t row, int64_t, int64_t offset, int64_t count, float*) {
    const float* const scales = factors.data() + row * 2 * channels;
    ScalePixels(from + offset, scales, scales + channels, options.silu, count, channels, to + offset);
  });
}

}  // namespace

at::Tensor FusedGroupNorm(at::Tensor x, const at::Tensor& shift, const at::Tensor& weight, const at::Tensor& bias,
                          const GroupNormOptions& options) {
  if (!HasKernel({x, shift.defined() ? shift : x, weight, bias}) || !x.is_contiguous(at::MemoryFormat::ChannelsLast)) {
    return plain::FusedGroupNorm(x, shift, weight, bias, options);
  }
  TORCH_CHECK(options.groups > 0 && x.size(1) % options.groups == 0 && weight.is_contiguous() && bias.is_contiguous() &&
                  weight.numel() == x.size(1) && bias.numel() == x.size(1),
              "group norm of ", x.sizes(), " with ", options.groups, " groups, weight ", weight.sizes(), ", bias ",
              bias.sizes());
  TORCH_CHECK(!shift.defined() || (shift.dim() == 2 && shift.size(0) == x.size(0) && shift.size(1) == x.size(1) &&
                                   shift.stride(1) == 1),
              "shift is ", shift.sizes(), " for ", x.sizes());
  RECORD_FUNCTION("hotlora::group_norm", {});
  at::Tensor y = at::empty(x.sizes(), x.options(), at::MemoryFormat::ChannelsLast);
  HOTLORA_DISPATCH(x.scalar_type(), "FusedGroupNorm",
                   [&] { NormalizeGroups<scalar_t>(x, shift, weight, bias, options, y); });
  return y;
}

at::Tensor AddLayerNorm(at::Tensor& x, const at::Tensor& added, const at::Tensor& weight, const at::Tensor& bias,
                        double epsilon) {
  if (!HasKernel({x, added, weight, bias}) || !x.is_contiguous() || !added.is_contiguous()) {
    return plain::AddLayerNorm(x, added, weight, bias, epsilon);
  }
  const int64_t width = x.size(-1), rows = x.numel() / width;
  TORCH_CHECK(added.sizes() == x.sizes() && !added.is_alias_of(x) && weight.is_contiguous() && bias.is_contiguous() &&
                  weight.numel() == width && bias.numel() == width,
              "layer norm of ", x.sizes(), " + ", added.sizes(), " with weight ", weight.sizes(), ", bias ",
              bias.sizes());
  RECORD_FUNCTION("hotlora::add_layer_norm", {});
  at::Tensor y = at::empty_like(x);
  HOTLORA_DISPATCH(x.scalar_type(), "AddLayerNorm", [&] {
    auto* const sums = x.mutable_data_ptr<scalar_t>();
    const auto* const more = added.const_data_ptr<scalar_t>();
    const auto* const weights = weight.const_data_ptr<scalar_t>();
    const auto* const biases = bias.const_data_ptr<scalar_t>();
    auto* const to = y.mutable_data_ptr<scalar_t>();
    ParallelFor(0, rows, std::max<int64_t>(1, kValuesWorthSharing / width), [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(width);
      AddNormRows(sums + begin * width, more + begin * width, weights, biases, epsilon, end - begin, width,
                  scratch.data(), to + begin * width);
    });
  });
  return y;
}

at::Tensor Geglu(const at::Tensor& both) {
  if (!HasKernel({both}) || !both.is_contiguous()) {
    return plain::Geglu(both);
  }
  const int64_t hidden = both.size(-1) / 2, rows = both.numel() / both.size(-1);
  TORCH_CHECK(2 * hidden == both.size(-1), "GEGLU of an odd width: ", both.sizes());
  RECORD_FUNCTION("hotlora::geglu", {});
  std::vector<int64_t> sizes = both.sizes().vec();
  sizes.back() = hidden;
  at::Tensor y = at::empty(sizes, both.options());
  HOTLORA_DISPATCH(both.scalar_type(), "Geglu", [&] {
    const auto* const from = both.const_data_ptr<scalar_t>();
    auto* const to = y.mutable_data_ptr<scalar_t>();
    ParallelFor(0, rows, std::max<int64_t>(1, kValuesWorthSharing / hidden), [&](int64_t begin, int64_t end) {
      GegluRows(from + begin * 2 * hidden, end - begin, hidden, to + begin * hidden);
    });
  });
  return y;
}

namespace plain {

at::Tensor FusedGroupNorm(at::Tensor x, const at::Tensor& shift, const at::Tensor& weight, const at::Tensor& bias,
                          const GroupNormOptions& options) {
  if (shift.defined()) {
    x.add_(shift.unsqueeze(-1).unsqueeze(-1));
  }
  at::Tensor y = at::group_norm(x, options.groups, weight, bias, options.epsilon);
  return options.silu ? at::silu_(y) : y;
}

at::Tensor AddLayerNorm(at::Tensor& x, const at::Tensor& added, const at::Tensor& weight, const at::Tensor& bias,
                        double epsilon) {
  return at::layer_norm(x.add_(added), weight.sizes(), weight, bias, epsilon);
}

at::Tensor Geglu(const at::Tensor& both) {
  const int64_t hidden = both.size(-1) / 2;
  at::Tensor gated = at::gelu(both.narrow(-1, hidden, hidden));
  return gated.mul_(both.narrow(-1, 0, hidden));
}

}  // namespace plain
}  // namespace hotlora
