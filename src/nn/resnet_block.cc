#include "src/nn/resnet_block.h"

#include <utility>

namespace hotlora {
namespace {

// One that leaves height and width as they are.
Conv2dOptions ConvolutionOf(const ResnetBlockOptions& options, int64_t in, int64_t kernel) {
  return {in, options.out, kernel, /*stride=*/1, kernel / 2, options.order};
}

}  // namespace

ResnetBlock::ResnetBlock(const ParameterScope& scope, const ResnetBlockOptions& options)
    : norm1(scope.In("norm1"), options.in, options.groups, options.epsilon),
      norm2(scope.In("norm2"), options.out, options.groups, options.epsilon),
      conv1(scope.In("conv1"), ConvolutionOf(options, options.in, 3)) {
  if (options.time_width > 0) {
    time_emb_proj.emplace(scope.In("time_emb_proj"), options.time_width, options.out);
  }
  conv2 = Conv2d(scope.In("conv2"), ConvolutionOf(options, options.out, 3));
  if (options.in != options.out) {
    conv_shortcut.emplace(scope.In("conv_shortcut"), ConvolutionOf(options, options.in, 1));
  }
}

at::Tensor ResnetBlock::forward(const at::Tensor& x, const at::Tensor& shift, SideBranch side) const {
  at::Tensor h = conv1.forward(norm1.forward_silu(x), side);  // [rows, out, height, width]
  h = norm2.forward_silu(std::move(h), shift);
  if (!conv_shortcut) {
    return conv2.forward(h, side).add_(x);  // x stays as it is: it may be a skip connection too
  }
  at::Tensor sum = conv_shortcut->forward(x, side);
  conv2.forward_add(h, sum, side);
  return sum;
}

}  // namespace hotlora
