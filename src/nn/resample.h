#ifndef HOTLORA_SRC_NN_RESAMPLE_H_
#define HOTLORA_SRC_NN_RESAMPLE_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "src/nn/conv2d.h"
#include "src/nn/parameter_source.h"

namespace hotlora {

// Halves height and width (rounded up) by a 3x3 convolution of stride 2.
//
// Shapes   x [rows, channels, height, width]; y the same, height and width halved; channels_last
struct Downsample2d {
  Downsample2d() = default;
  Downsample2d(const ParameterScope& scope, int64_t channels);
  at::Tensor forward(const at::Tensor& x, SideBranch side = {}) const;

  Conv2d conv;
};

// Enlarges to `height` x `width` by the nearest pixel, then a 3x3 convolution. A UNet passes the
// size of the skip connection that comes next, which is twice its own unless the latent's size is
// not a multiple of its deepest level's.
//
// Shapes   x [rows, channels, any, any]; y [rows, channels, height, width]; channels_last
struct Upsample2d {
  Upsample2d() = default;
  Upsample2d(const ParameterScope& scope, int64_t channels);
  at::Tensor forward(const at::Tensor& x, int64_t height, int64_t width, SideBranch side = {}) const;

  Conv2d conv;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_RESAMPLE_H_
