#ifndef HOTLORA_SRC_NN_NORM_H_
#define HOTLORA_SRC_NN_NORM_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "src/nn/parameter_source.h"

namespace hotlora {

// Normalises each row over each group of channels and all pixels, then scales and shifts each
// channel.
//
// Shapes   x, y [rows, channels, height, width]; weight, bias [channels]; groups divides channels
// Source   Wu and He 2018, arXiv 1803.08494
struct GroupNorm {
  GroupNorm() = default;
  GroupNorm(const ParameterScope& scope, int64_t channels, int64_t groups, double epsilon);
  at::Tensor forward(const at::Tensor& x) const;

  // silu(forward(x + shift)), as in every resnet block. `shift` is [rows, channels], or undefined. With a shift, x may
  // be overwritten.
  at::Tensor forward_silu(at::Tensor x, const at::Tensor& shift = {}) const;

  at::Tensor weight;
  at::Tensor bias;
  int64_t groups = 0;
  double epsilon = 0.0;
};

// Normalises the last dimension, then scales and shifts it.
//
// Shapes   x, y [..., width]; weight, bias [width]
// Source   Ba et al. 2016, arXiv 1607.06450
struct LayerNorm {
  LayerNorm() = default;
  LayerNorm(const ParameterScope& scope, int64_t width, double epsilon);
  at::Tensor forward(const at::Tensor& x) const;

  // x += added, which is shaped as x; then forward(x).
  at::Tensor forward_add(at::Tensor& x, const at::Tensor& added) const;

  at::Tensor weight;
  at::Tensor bias;
  double epsilon = 0.0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_NORM_H_
