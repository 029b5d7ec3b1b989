#include "src/nn/onednn_ops.h"

#include <optional>
#include <vector>

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/record_function.h>

#include "src/nn/packed_product.h"
#include "src/nn/packed_weight.h"

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

// Which of the two is faster for a plain weight on AMD's CPUs (docs/performance.md).
bool OneDnnMultiplies(const at::Tensor& x, const at::Tensor& weight) {
  constexpr int64_t kFewestRows = 16;
  return IsMadeByAmd() && x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
         x.numel() > 0 && x.numel() >= kFewestRows * x.size(-1) && OneDnnLinear().has_value();
}

bool OneDnnConvolves(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& sum) {
  const auto channels_last = at::MemoryFormat::ChannelsLast;
  return x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
         sum.scalar_type() == at::kFloat && x.is_contiguous(channels_last) && weight.is_contiguous(channels_last) &&
         sum.is_contiguous(channels_last) && OneDnnAddConvolution().has_value();
}

MaybeTensor Maybe(const at::Tensor& tensor) { return tensor.defined() ? MaybeTensor(tensor) : std::nullopt; }

}  // namespace

at::Tensor Product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!IsPacked(weight)) {
    RECORD_FUNCTION("hotlora::linear", {});
    return OneDnnMultiplies(x, weight) ? OneDnnLinear()->call(x, weight, Maybe(bias), "none", Scalars(), std::nullopt)
                                       : at::linear(x, weight, bias);
  }
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = OutputsOf(weight);
  at::Tensor y = at::empty(shape, x.options());
  ProductInto(x, weight, bias, y);
  return y;
}

void ProductInto(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, at::Tensor& y) {
  const at::Tensor flat_x = x.reshape({-1, x.size(-1)});
  at::Tensor flat_y = y.view({-1, y.size(-1)});
  if (IsPacked(weight)) {
    PackedProductInto(flat_x.stride(1) == 1 ? flat_x : flat_x.contiguous(), weight, bias, flat_y);
    return;
  }
  RECORD_FUNCTION("hotlora::linear", {});
  if (OneDnnMultiplies(x, weight)) {
    flat_y.copy_(OneDnnLinear()->call(flat_x, weight, Maybe(bias), "none", Scalars(), std::nullopt));
  } else if (bias.defined()) {
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
