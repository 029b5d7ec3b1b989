#ifndef HOTLORA_SRC_NN_FEED_FORWARD_H_
#define HOTLORA_SRC_NN_FEED_FORWARD_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "src/nn/linear.h"
#include "src/nn/parameter_source.h"

namespace hotlora {

// The feed-forward part of a UNet transformer block: project to twice the hidden width, gate one
// half by the exact GELU of the other, project back. Names: net.0.proj, net.2.
//
// Shapes   x, y [..., width], y contiguous
// Threads  const
// Source   Shazeer 2020, arXiv 2002.05202 (GEGLU); the gate is the second half
struct GegluFeedForward {
  static constexpr int64_t kExpansion = 4;  // hidden width over width, fixed by the architecture

  GegluFeedForward() = default;
  GegluFeedForward(const ParameterScope& scope, int64_t width);
  void forward_into(const at::Tensor& x, SideBranch side, at::Tensor y) const;

  Linear project_in, project_out;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_FEED_FORWARD_H_
