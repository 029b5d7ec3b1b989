#include "src/nn/resample.h"

#include <ATen/ops/upsample_nearest2d.h>

namespace hotlora {
namespace {

Conv2dOptions HalvingConv(int64_t channels) {
  Conv2dOptions options{channels, channels};
  options.stride = 2;
  return options;
}

}  // namespace

Downsample2d::Downsample2d(const ParameterScope& scope, int64_t channels)
    : conv(scope.In("conv"), HalvingConv(channels)) {}

at::Tensor Downsample2d::forward(const at::Tensor& x, SideBranch side) const { return conv.forward(x, side); }

Upsample2d::Upsample2d(const ParameterScope& scope, int64_t channels)
    : conv(scope.In("conv"), Conv2dOptions{channels, channels}) {}

at::Tensor Upsample2d::forward(const at::Tensor& x, int64_t height, int64_t width, SideBranch side) const {
  return conv.forward(at::upsample_nearest2d(x, {height, width}), side);
}

}  // namespace hotlora
