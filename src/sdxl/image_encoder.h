#ifndef HOTLORA_SRC_SDXL_IMAGE_ENCODER_H_
#define HOTLORA_SRC_SDXL_IMAGE_ENCODER_H_

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/linear.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/sdxl/clip_layer.h"
#include "src/sdxl/image_encoder_config.h"

namespace hotlora {

// What an image encoder makes of n pictures.
struct EncodedPictures {
  at::Tensor hidden;      // what the last layer but one puts out: [n, tokens, width]
  at::Tensor embeddings;  // [n, projection]

  EncodedPictures Some(int64_t first, int64_t count) const {
    return {hidden.narrow(0, first, count), embeddings.narrow(0, first, count)};
  }
};

// CLIP's image encoder, which image prompts see pictures through.
//
// Shapes   pixels [n, 3, image_size, image_size]
// Dtypes   its parameters'
// Threads  const
// Source   Radford et al. 2021, arXiv 2103.00020; transformers models/clip/modeling_clip.py,
//          CLIPVisionModelWithProjection
class ImageEncoder {
 public:
  ImageEncoder(const ParameterScope& scope, const ImageEncoderConfig& config);

  // Pictures of the encoder's size, as CoverSquare makes them ([n, image_size, image_size, 3], bytes), to normalised
  // pixels.
  at::Tensor Normalize(const at::Tensor& pictures) const;

  EncodedPictures Encode(const at::Tensor& pixels) const;

  const ImageEncoderConfig& config() const { return config_; }

 private:
  ImageEncoderConfig config_;
  at::Tensor class_embedding_;     // [width]
  at::Tensor patch_embedding_;     // [width, 3, patch, patch]
  at::Tensor position_embedding_;  // [tokens, width]
  LayerNorm pre_layer_norm_, post_layer_norm_;
  std::vector<ClipLayer> layers_;
  Linear visual_projection_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_IMAGE_ENCODER_H_
