#ifndef HOTLORA_SRC_NN_RESNET_BLOCK_H_
#define HOTLORA_SRC_NN_RESNET_BLOCK_H_

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "src/nn/conv2d.h"
#include "src/nn/linear.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"

namespace hotlora {

struct ResnetBlockOptions {
  int64_t in = 0;
  int64_t out = 0;
  int64_t time_width = 0;  // of the time embedding; 0: the block takes none (VAE)
  int64_t groups = 0;
  double epsilon = 0.0;
  WeightOrder order = WeightOrder::kPlain;  // of the convolutions
};

// Two normalised 3x3 convolutions with a shift by the time embedding between them, added to the
// input; a 1x1 convolution brings the input to `out` channels if they differ.
//
// Shapes   x [rows, in, height, width]; time_silu [rows, time_width]; shift [rows, out]; y [rows, out, height, width]
// Layout   channels_last
// Threads  const
// Source   diffusers models/resnet.py, ResnetBlock2D with time_embedding_norm "default"
struct ResnetBlock {
  ResnetBlock() = default;
  ResnetBlock(const ParameterScope& scope, const ResnetBlockOptions& options);

  // `shift`: ProjectTime of the step's time embedding; undefined without time_width.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& shift, SideBranch side = {}) const;

  // The shift by a time embedding, of which `time_silu` is silu. REQUIRES: time_width.
  at::Tensor ProjectTime(const at::Tensor& time_silu, SideBranch side = {}) const {
    return time_emb_proj->forward(time_silu, side);
  }

  GroupNorm norm1, norm2;
  Conv2d conv1, conv2;
  std::optional<Linear> time_emb_proj;
  std::optional<Conv2d> conv_shortcut;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_RESNET_BLOCK_H_
