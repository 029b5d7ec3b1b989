#ifndef HOTLORA_SRC_SDXL_VAE_DECODER_H_
#define HOTLORA_SRC_SDXL_VAE_DECODER_H_

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/conv2d.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/nn/resample.h"
#include "src/nn/resnet_block.h"
#include "src/sdxl/sdxl_config.h"
#include "src/sdxl/vae_bands.h"
#include "src/sdxl/vae_blocks.h"

namespace hotlora {

// The decoder half of SDXL's autoencoder.
//
// Dtype    its parameters', ComputePlace::vae_dtype
// Layout   channels_last inside
// Threads  const: one thread may decode while another runs the UNet
// Source   Rombach et al. 2021, arXiv 2112.10752; diffusers models/autoencoders/vae.py, Decoder
class VaeDecoder {
 public:
  // Takes "post_quant_conv" and "decoder" of the VAE's parameters.
  VaeDecoder(const ParameterScope& scope, const VaeConfig& config);

  // A finished latent as an image.
  //
  // Shapes   latents [rows, latent channels, height, width];
  //          image [rows, 3, height * factor, width * factor], contiguous
  // Dtypes   latents any floating type; image float32
  // Range    about -1 to 1, not clamped
  // Errors   throws NonfiniteError
  at::Tensor forward(const at::Tensor& latents) const;

  // The same up to rounding, with less memory and in more time: vae_bands.h.
  at::Tensor forward_tiled(const at::Tensor& latents, int64_t band_values = kBandValues) const;

  // No less than what forward_tiled holds for one row of latents [height, width], in bytes.
  int64_t TiledBytes(int64_t height, int64_t width, int64_t band_values = kBandValues) const;

  const VaeConfig& config() const { return config_; }

 private:
  struct UpBlock {
    std::vector<ResnetBlock> resnets;
    std::optional<Upsample2d> upsampler;
  };

  // From latents to the first up block's input.
  at::Tensor Begin(const at::Tensor& latents) const;
  at::Tensor TileRow(at::Tensor h, int64_t band_values) const;

  VaeConfig config_;
  LatentScaling scaling_;
  std::optional<Conv2d> post_quant_conv_;
  Conv2d conv_in_;
  VaeMidBlock mid_block_;
  std::vector<UpBlock> up_blocks_;
  GroupNorm conv_norm_out_;
  Conv2d conv_out_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_VAE_DECODER_H_
