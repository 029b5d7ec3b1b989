#ifndef HOTLORA_SRC_SDXL_VAE_ENCODER_H_
#define HOTLORA_SRC_SDXL_VAE_ENCODER_H_

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/conv2d.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/nn/resnet_block.h"
#include "src/sdxl/sdxl_config.h"
#include "src/sdxl/vae_bands.h"
#include "src/sdxl/vae_blocks.h"

namespace hotlora {

// The normal distribution, independent in each value, that an image is encoded to.
//
// Shapes   both [rows, latent channels, height / factor, width / factor]
// Dtypes   float32
struct LatentPosterior {
  at::Tensor mean, std;  // of the autoencoder's own latents, not scaled
};

// The encoder half of SDXL's autoencoder.
//
// Dtype    its parameters', as the decoder's
// Layout   channels_last inside
// Threads  const
// Source   Rombach et al. 2021, arXiv 2112.10752; diffusers models/autoencoders/vae.py, Encoder and
//          DiagonalGaussianDistribution
class VaeEncoder {
 public:
  // Takes "quant_conv" and "encoder" of the VAE's parameters.
  VaeEncoder(const ParameterScope& scope, const VaeConfig& config);

  // Shapes   image [rows, 3, height, width], both multiples of the VAE's factor
  // Range    image -1 to 1
  // Errors   throws NonfiniteError
  LatentPosterior forward(const at::Tensor& image) const;

  // The same up to rounding, with less memory and in more time: vae_bands.h.
  LatentPosterior forward_tiled(const at::Tensor& image, int64_t band_values = kBandValues) const;

  // No less than what forward_tiled holds for one image of `height` and `width` pixels, in bytes.
  int64_t TiledBytes(int64_t height, int64_t width, int64_t band_values = kBandValues) const;

  // Latents as the UNet works on them, drawn from `posterior` by `noise`, unit normal and of its shape.
  at::Tensor Sample(const LatentPosterior& posterior, const at::Tensor& noise) const;

 private:
  struct DownBlock {
    std::vector<ResnetBlock> resnets;
    std::optional<Conv2d> downsampler;  // of stride 2, with one pixel of zeros on the right and below
  };

  // From the last down block's output on.
  LatentPosterior End(at::Tensor h) const;
  at::Tensor TileRow(const at::Tensor& image, int64_t band_values) const;

  LatentScaling scaling_;
  Conv2d conv_in_;
  std::vector<DownBlock> down_blocks_;
  VaeMidBlock mid_block_;
  GroupNorm conv_norm_out_;
  Conv2d conv_out_;
  std::optional<Conv2d> quant_conv_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_VAE_ENCODER_H_
