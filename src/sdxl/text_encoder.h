#ifndef HOTLORA_SRC_SDXL_TEXT_ENCODER_H_
#define HOTLORA_SRC_SDXL_TEXT_ENCODER_H_

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include "src/nn/linear.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/sdxl/clip_layer.h"
#include "src/sdxl/sdxl_config.h"

namespace hotlora {

// What SDXL takes from one text encoder.
struct TextEncoding {
  at::Tensor hidden;  // [rows, tokens, width], before any final norm
  at::Tensor pooled;  // [rows, projection]; undefined for an encoder without projection
};

// Vectors in place of the token embeddings of one row from `position` on.
struct SplicedVectors {
  int64_t row = 0, position = 0;
  at::Tensor vectors;  // [count, width]
};

// A CLIP text encoder: CLIP ViT-L or OpenCLIP bigG, by its config.
//
// Threads  const
// Source   Radford et al. 2021, arXiv 2103.00020; transformers models/clip/modeling_clip.py;
//          which layer SDXL takes: Podell et al. 2023, arXiv 2307.01952, section 2.1
class TextEncoder {
 public:
  TextEncoder(const ParameterScope& scope, const TextEncoderConfig& config);

  // `clip_skips` of each row, or one of all rows.
  // hidden: what layer number (layers - 1 - clip_skip) puts out: for clip_skip 0 the last but one.
  // pooled: the last layer's state at the end token, normalised and projected, whatever clip_skip.
  //
  // `spliced` vectors are taken for the embeddings of the ids at their places, which then only must not be end tokens.
  //
  // Shapes   ids [rows, tokens] on the CPU, tokens at most the config's positions
  // Dtypes   ids int64; the encoding in the encoder's dtype, on its device
  // Errors   throws c10::Error on ids outside the vocabulary and on clip_skip beyond layers - 1
  TextEncoding forward(const at::Tensor& ids, c10::ArrayRef<int64_t> clip_skips, SideBranch side = {},
                       c10::ArrayRef<SplicedVectors> spliced = {}) const;

  const TextEncoderConfig& config() const { return config_; }

 private:
  at::Tensor Embed(const at::Tensor& ids, c10::ArrayRef<SplicedVectors> spliced) const;
  at::Tensor Pool(const at::Tensor& hidden, const at::Tensor& ids, SideBranch side) const;

  TextEncoderConfig config_;
  at::Tensor token_embedding_;     // [vocabulary, width]
  at::Tensor position_embedding_;  // [positions, width]
  std::vector<ClipLayer> layers_;
  LayerNorm final_layer_norm_;
  Linear text_projection_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_TEXT_ENCODER_H_
