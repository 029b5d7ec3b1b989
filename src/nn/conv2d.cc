#include "src/nn/conv2d.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>

#include "src/nn/onednn_ops.h"

namespace hotlora {
namespace {

int64_t OutputSize(int64_t size, const Conv2dOptions& options) {
  return (size + 2 * options.padding - options.kernel) / options.stride + 1;
}

// The pixels of the result, over all rows.
int64_t OutputPixels(const at::Tensor& x, const Conv2dOptions& options) {
  return x.size(0) * OutputSize(x.size(2), options) * OutputSize(x.size(3), options);
}

// On the CPU, convolutions of few pixels by many channels spend most of their time in oneDNN's
// rearranging of the weights, which it does on every call. Measured 2026-11-23 (AVX-512, float32,
// one thread, two rows): 1280 channels at 8x8 57 ms against 28 as one product, 320 at 4x4 0.87
// against 0.66, 160 at 8x8 0.41 against 0.46.
bool IsSmall(const at::Tensor& x, const Conv2dOptions& options) {
  return x.is_cpu() && 4 * OutputPixels(x, options) <= options.out;
}

// The convolution as one matrix product over the unfolded windows. The weight is channels_last, so
// it is that product's matrix as it lies.
at::Tensor MultiplyWindows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           const Conv2dOptions& options) {
  const int64_t rows = x.size(0), k = options.kernel, p = options.padding, s = options.stride;
  const int64_t height = OutputSize(x.size(2), options), width = OutputSize(x.size(3), options);
  const at::Tensor padded = at::constant_pad_nd(x.permute({0, 2, 3, 1}).contiguous(), {0, 0, p, p, p, p});
  const at::IntArrayRef strides = padded.strides();  // [rows, height + 2p, width + 2p, in]
  const at::Tensor windows = padded.as_strided({rows, height, width, k, k, options.in},
                                               {strides[0], strides[1] * s, strides[2] * s, strides[1], strides[2], 1});
  const at::Tensor matrix = weight.permute({0, 2, 3, 1}).reshape({options.out, k * k * options.in});
  const at::Tensor y = Product(windows.reshape({rows * height * width, k * k * options.in}), matrix, bias);
  return y.view({rows, height, width, options.out}).permute({0, 3, 1, 2});
}

at::Tensor Convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    const Conv2dOptions& options) {
  if (IsSmall(x, options)) {
    return MultiplyWindows(x, weight, bias, options);
  }
  return at::conv2d(x, weight, bias, {options.stride, options.stride}, {options.padding, options.padding});
}

// A x: the input through an adapter's thin side, a convolution like the module's own. [rows, rank, ...]
at::Tensor ConvolveDown(const at::Tensor& x, const LowRank& factors, Conv2dOptions options) {
  const int64_t rank = factors.down.size(0), k = options.kernel;
  const at::Tensor down = factors.down.to(at::kFloat);
  if (!factors.mid.defined()) {
    options.out = rank;
    return Convolve(x, down.view({rank, options.in, k, k}), {}, options);
  }
  const at::Tensor low = Convolve(x, down.view({rank, options.in, 1, 1}), {}, {options.in, rank, 1, 1, 0});
  options.in = rank;
  options.out = factors.mid.size(0);
  return Convolve(low, factors.mid.to(at::kFloat), {}, options);
}

}  // namespace

Conv2d::Conv2d(const ParameterScope& scope, const Conv2dOptions& options) : options(options) {
  const AdaptableParameter taken =
      scope.TakeAdaptable("weight", {options.out, options.in, options.kernel, options.kernel});
  weight = taken.live;
  module = taken.index;
  bias = scope.TakeAdaptable("bias", {options.out}).live;
}

ThreadsFor Conv2d::ThreadsForConvolution(const at::Tensor& x) const {
  return ThreadsFor(static_cast<double>(OutputPixels(x, options)) * static_cast<double>(weight.numel()));
}

at::Tensor Conv2d::forward(const at::Tensor& x, SideBranch side) const {
  const ThreadsFor threads = ThreadsForConvolution(x);
  at::Tensor y = Convolve(x, weight, bias, options);
  AddSide(side, x, y);
  return y;
}

void Conv2d::forward_add(const at::Tensor& x, at::Tensor& sum, SideBranch side) const {
  if (!side.empty() || IsSmall(x, options)) {  // a side branch may scale what the convolution itself gives
    sum.add_(forward(x, side));
    return;
  }
  const ThreadsFor threads = ThreadsForConvolution(x);
  AddConvolution(x, weight, bias, {options.stride, options.stride}, {options.padding, options.padding}, sum);
}

void Conv2d::AddSide(SideBranch side, const at::Tensor& x, at::Tensor& y) const {
  for (const SideRows& rows : side) {
    for (const SideChange& change : rows.table->Of(module)) {
      const at::Tensor low = ConvolveDown(x.narrow(0, rows.first, rows.rows).to(at::kFloat), *change.factors, options);
      AddSideProduct(change, low.permute({0, 2, 3, 1}).reshape({-1, low.size(1)}), bias,
                     y.narrow(0, rows.first, rows.rows).permute({0, 2, 3, 1}).view({-1, options.out}));
    }
  }
}

}  // namespace hotlora
