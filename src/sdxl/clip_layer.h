#ifndef HOTLORA_SRC_SDXL_CLIP_LAYER_H_
#define HOTLORA_SRC_SDXL_CLIP_LAYER_H_

#include <ATen/core/Tensor.h>

#include "src/nn/linear.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/sdxl/sdxl_config.h"

namespace hotlora {

// A layer of a CLIP encoder: self-attention and a feed-forward part, each normalised before and added to its input.
//
// Shapes   x, y [rows, tokens, width]
// Threads  const
// Source   transformers models/clip/modeling_clip.py, CLIPEncoderLayer
struct ClipLayer {
  ClipLayer(const ParameterScope& scope, const ClipConfig& config);
  at::Tensor forward(at::Tensor x, const ClipConfig& config, SideBranch side = {}) const;

  LayerNorm layer_norm1, layer_norm2;
  Linear qkv_proj, out_proj, fc1, fc2;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CLIP_LAYER_H_
