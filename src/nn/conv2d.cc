#include "src/nn/conv2d.h"

#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>

#include "src/nn/onednn_ops.h"
#include "src/nn/packed_product.h"
#include "src/nn/packed_weight.h"

namespace hotlora {
namespace {

int64_t OutputSize(int64_t size, const Conv2dOptions& options) {
  return (size + 2 * options.padding - options.kernel) / options.stride + 1;
}

// The pixels of the result, over all rows.
int64_t OutputPixels(const at::Tensor& x, const Conv2dOptions& options) {
  return x.size(0) * OutputSize(x.size(2), options) * OutputSize(x.size(3), options);
}

// The convolution with a packed weight, or with a plain one by LibTorch.
at::Tensor Convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    const Conv2dOptions& options) {
  if (!IsPacked(weight)) {
    return at::conv2d(x, weight, bias, {options.stride, options.stride}, {options.padding, options.padding});
  }
  at::Tensor y = at::empty({x.size(0), options.out, OutputSize(x.size(2), options), OutputSize(x.size(3), options)},
                           x.options(), at::MemoryFormat::ChannelsLast);
  PackedConvolutionInto(x, weight, bias, {options.kernel, options.stride, options.padding}, Result::kNew, y);
  return y;
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
      scope.TakeAdaptable("weight", {options.out, options.in, options.kernel, options.kernel}, options.order);
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
  if (!side.empty()) {  // a side branch may scale what the convolution itself gives
    sum.add_(forward(x, side));
    return;
  }
  const ThreadsFor threads = ThreadsForConvolution(x);
  if (IsPacked(weight)) {
    PackedConvolutionInto(x, weight, bias, {options.kernel, options.stride, options.padding}, Result::kSum, sum);
    return;
  }
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
