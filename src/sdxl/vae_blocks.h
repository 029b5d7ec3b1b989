#ifndef HOTLORA_SRC_SDXL_VAE_BLOCKS_H_
#define HOTLORA_SRC_SDXL_VAE_BLOCKS_H_

// What both halves of SDXL's autoencoder have.

#include <ATen/core/Tensor.h>

#include "src/nn/attention.h"
#include "src/nn/conv2d.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/nn/resnet_block.h"
#include "src/sdxl/sdxl_config.h"

namespace hotlora {

inline constexpr double kVaeNormEpsilon = 1e-6;  // of every norm in diffusers' autoencoder; no config key

// Tensors of the innermost picture's size that exist at once in a VaeMidBlock, at most.
inline constexpr int64_t kMidBlockPictures = 10;

inline constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));

// Bytes for each value that a convolution reads, beside the tensors: on CPUs without instructions for a half type,
// LibTorch unfolds it, nine values for one, and copies it and the result into another layout.
inline int64_t UnfoldedBytes(int64_t value_bytes) { return value_bytes == kFloatBytes ? 0 : 11 * value_bytes; }

// Throws NonfiniteError if `h`, which the VAE put out, is not finite.
void CheckVaeOutput(const at::Tensor& h);

ResnetBlock MakeVaeResnet(const ParameterScope& scope, int64_t in, int64_t out, const VaeConfig& config);

// A convolution of one pixel, as before the decoder and behind the encoder.
Conv2d MakePointwiseConv(const ParameterScope& scope, int64_t in, int64_t out);

// Resnet, self-attention over all pixels, resnet; at the innermost resolution.
//
// Shapes   h and the result [rows, innermost channels, height, width]; channels_last
struct VaeMidBlock {
  VaeMidBlock() = default;
  VaeMidBlock(const ParameterScope& scope, const VaeConfig& config);
  at::Tensor forward(at::Tensor h) const;

  ResnetBlock first, second;
  GroupNorm group_norm;
  SelfAttention attention;
};

// Between the latents that the UNet works on, of about unit variance, and those of the autoencoder itself. Both are
// float32.
class LatentScaling {
 public:
  LatentScaling() = default;
  LatentScaling(const VaeConfig& config, c10::Device device);

  at::Tensor ToVae(const at::Tensor& latents) const;
  at::Tensor FromVae(const at::Tensor& latents) const;

 private:
  double factor_ = 1.0;
  at::Tensor mean_, std_;  // [latent channels, 1, 1]; undefined if the config has none
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_VAE_BLOCKS_H_
