#ifndef HOTLORA_SRC_PIPELINE_INIT_LATENTS_H_
#define HOTLORA_SRC_PIPELINE_INIT_LATENTS_H_

// How rows begin with an image in place of noise, and how those with a mask keep what the mask does not repaint.
// Follows diffusers' StableDiffusionXLImg2ImgPipeline and StableDiffusionXLInpaintPipeline (for UNets of as many input
// channels as latents have).

#include <ATen/core/Tensor.h>

#include "src/pipeline/init_picture.h"
#include "src/pipeline/pipeline.h"
#include "src/sampling/sampler.h"
#include "src/sdxl/vae_encoder.h"
#include "src/tensor/seeded_noise.h"

namespace hotlora {

// An init image as latents, the same for all rows of a request: what the VAE says of it, and the mask. On the device,
// float32. Immutable.
struct SdxlInitLatents final : InitLatents {
  LatentPosterior posterior;  // [1, latent channels, height, width]
  at::Tensor repaint;         // [1, 1, height, width] of 0 and 1; undefined without a mask
};

// `factor`: pixels for each latent on a side; of so many the mask's first counts.
SdxlInitLatents EncodeInitPicture(const VaeEncoder& encoder, const InitPicture& picture, VaeForm form, int64_t factor,
                                  c10::Device device);

// What one row needs of it: how its image looks as latents and the noise that was laid over them.
struct InitRow {
  at::Tensor image, noise;  // [1, latent channels, height, width]
  at::Tensor repaint;       // SdxlInitLatents's

  // `latents` where the mask repaints; elsewhere the image with as much noise as `sampler`'s next evaluation expects,
  // none once it is done. Without a mask `latents` themselves.
  at::Tensor Keep(const at::Tensor& latents, const SamplerState& sampler) const;

  // The same without noise, for latents that have none.
  at::Tensor KeepClean(const at::Tensor& clean) const;
};

// Draws what diffusers draws before the first step, in its order: the image's latents from their posterior, then the
// noise, then (with a mask) the latents of the masked image, which only UNets of other input channels would take.
InitRow StartInitRow(const SdxlInitLatents& init, const VaeEncoder& encoder, SeededNoise& noise);

// The row's first latents: image and noise at the level of the sampler's first evaluation; noise alone with a mask at
// strength 1.
at::Tensor FirstLatents(const InitRow& row, double strength, const SamplerState& sampler);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_INIT_LATENTS_H_
