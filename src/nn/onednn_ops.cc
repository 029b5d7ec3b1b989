#include "src/nn/onednn_ops.h"

#include <algorithm>
#include <optional>
#include <vector>

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/record_function.h>

#include "src/nn/fused_kernels.h"
#include "src/tensor/parallel_for.h"
#include "src/tensor/threads_for.h"

namespace hotlora {
namespace {

using MaybeTensor = std::optional<at::Tensor>;
using MaybeScalar = std::optional<at::Scalar>;
using MaybeText = std::optional<std::string_view>;

using Scalars = c10::List<MaybeScalar>;

using LinearFunction = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& bias,
                                  std::string_view after, Scalars scalars, MaybeText algorithm);
using AddConvolutionFunction = at::Tensor&(at::Tensor& sum, const at::Tensor& x, const at::Tensor& weight,
                                           const MaybeTensor& bias, at::IntArrayRef padding, at::IntArrayRef stride,
                                           at::IntArrayRef dilation, int64_t groups, std::string_view binary,
                                           MaybeScalar alpha, MaybeText after, Scalars scalars, MaybeText algorithm);

// The operator, or none if this build of LibTorch has no oneDNN.
template <typename Function>
std::optional<c10::TypedOperatorHandle<Function>> Find(const char* name, const char* overload) {
  const std::optional<c10::OperatorHandle> found = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!found.has_value() || !found->hasKernelForDispatchKey(c10::DispatchKey::CPU)) {
    return std::nullopt;
  }
  return found->typed<Function>();
}

const std::optional<c10::TypedOperatorHandle<LinearFunction>>& OneDnnLinear() {
  static const auto found = Find<LinearFunction>("mkldnn::_linear_pointwise", "");
  return found;
}

const std::optional<c10::TypedOperatorHandle<AddConvolutionFunction>>& OneDnnAddConvolution() {
  static const auto found = Find<AddConvolutionFunction>("mkldnn::_convolution_pointwise_", "binary");
  return found;
}

#if defined(__x86_64__)
bool IsMadeByAmd() { return __builtin_cpu_is("amd"); }
#else
bool IsMadeByAmd() { return false; }
#endif

enum class Multiplier { kLibTorch, kOneDnn, kOneDnnTransposed };

// The fastest on AMD's CPUs (docs/performance.md).
Multiplier MultiplierFor(const at::Tensor& x, const at::Tensor& weight) {
  constexpr int64_t kFewestRows = 16, kMostTransposedRows = 128;
  const int64_t in = x.size(-1);
  if (!IsMadeByAmd() || !x.is_cpu() || x.scalar_type() != at::kFloat || weight.scalar_type() != at::kFloat ||
      x.numel() < kFewestRows * in || x.numel() == 0 || !OneDnnLinear().has_value()) {
    return Multiplier::kLibTorch;
  }
  return x.numel() <= kMostTransposedRows * in ? Multiplier::kOneDnnTransposed : Multiplier::kOneDnn;
}

bool OneDnnConvolves(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& sum) {
  const auto channels_last = at::MemoryFormat::ChannelsLast;
  return x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
         sum.scalar_type() == at::kFloat && x.is_contiguous(channels_last) && weight.is_contiguous(channels_last) &&
         sum.is_contiguous(channels_last) && OneDnnAddConvolution().has_value();
}

MaybeTensor Maybe(const at::Tensor& tensor) { return tensor.defined() ? MaybeTensor(tensor) : std::nullopt; }

}  // namespace

bool TransposedProductInto(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, at::Tensor& y) {
  TORCH_CHECK(y.is_contiguous() && y.scalar_type() == at::kFloat, "y is not contiguous float32");
  TORCH_CHECK(!bias.defined() || (bias.is_contiguous() && bias.scalar_type() == at::kFloat),
              "bias is not contiguous float32");
  if (!OneDnnLinear().has_value()) {
    return false;
  }
  const int64_t rows = y.size(0), columns = y.size(1);
  const at::Tensor transposed = OneDnnLinear()->call(weight, x, std::nullopt, "none", Scalars(), std::nullopt);
  ParallelFor(0, rows, std::max<int64_t>(1, kValuesWorthSharing / columns), [&](int64_t first, int64_t end) {
    TransposeAdd(transposed.const_data_ptr<float>(), bias.defined() ? bias.const_data_ptr<float>() : nullptr, rows,
                 columns, first, end, y.mutable_data_ptr<float>());
  });
  return true;
}

at::Tensor Product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  RECORD_FUNCTION("hotlora::linear", {});
  switch (MultiplierFor(x, weight)) {
    case Multiplier::kOneDnnTransposed: {
      std::vector<int64_t> shape = x.sizes().vec();
      shape.back() = weight.size(0);
      at::Tensor flat_y = at::empty({x.numel() / x.size(-1), weight.size(0)}, x.options());
      TransposedProductInto(x.reshape({-1, x.size(-1)}), weight, bias, flat_y);
      return flat_y.view(shape);
    }
    case Multiplier::kOneDnn:
      return OneDnnLinear()->call(x, weight, Maybe(bias), "none", Scalars(), std::nullopt);
    case Multiplier::kLibTorch:
      break;
  }
  return at::linear(x, weight, bias);
}

void ProductInto(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, at::Tensor& y) {
  RECORD_FUNCTION("hotlora::linear", {});
  const at::Tensor flat_x = x.reshape({-1, x.size(-1)});
  at::Tensor flat_y = y.view({-1, y.size(-1)});
  switch (MultiplierFor(x, weight)) {
    case Multiplier::kOneDnnTransposed:
      TransposedProductInto(flat_x, weight, bias, flat_y);
      return;
    case Multiplier::kOneDnn:
      flat_y.copy_(OneDnnLinear()->call(flat_x, weight, Maybe(bias), "none", Scalars(), std::nullopt));
      return;
    case Multiplier::kLibTorch:
      break;
  }
  if (bias.defined()) {
    at::addmm_out(flat_y, bias, flat_x, weight.t());
  } else {
    at::mm_out(flat_y, flat_x, weight.t());
  }
}

void AddConvolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, c10::IntArrayRef stride,
                    c10::IntArrayRef padding, at::Tensor& sum) {
  RECORD_FUNCTION("hotlora::add_convolution", {});
  if (!OneDnnConvolves(x, weight, sum)) {
    plain::AddConvolution(x, weight, bias, stride, padding, sum);
    return;
  }
  OneDnnAddConvolution()->call(sum, x, weight, Maybe(bias), padding, stride, /*dilation=*/{1, 1}, /*groups=*/1, "add",
                               /*alpha=*/at::Scalar(1.0), /*after=*/std::nullopt, Scalars(), std::nullopt);
}

namespace plain {

void AddConvolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, c10::IntArrayRef stride,
                    c10::IntArrayRef padding, at::Tensor& sum) {
  sum.add_(at::conv2d(x, weight, bias, stride, padding));
}

}  // namespace plain
}  // namespace hotlora
