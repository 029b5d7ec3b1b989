#ifndef HOTLORA_SRC_PIPELINE_LATENT_PREVIEW_H_
#define HOTLORA_SRC_PIPELINE_LATENT_PREVIEW_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include "src/image/rgb_image.h"
#include "src/sdxl/vae_decoder.h"

namespace hotlora {

// A rough image of latents, an eighth of the real one's width and height, for next to no work: each pixel is a linear
// function of its latent. The function is fitted to the VAE at hand, by least squares over what that makes of smooth
// random latents from a fixed seed, so that it suits every checkpoint.
class LatentPreview {
 public:
  // Decodes one latent of kSide x kSide; `device` is the decoder's. Throws c10::Error.
  static constexpr int64_t kSide = 32;
  LatentPreview(const VaeDecoder& decoder, c10::Device device);

  // Shapes   latents [1, latent channels, height, width], without noise; the image height x width
  RgbImage Draw(const at::Tensor& latents) const;

 private:
  at::Tensor weights_;  // [latent channels + 1, 3] on the CPU, the last row the constant part
};

// [1, 3, height, width] of about -1 to 1 as bytes, on any device.
RgbImage ToRgbImage(const at::Tensor& pixels);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_LATENT_PREVIEW_H_
