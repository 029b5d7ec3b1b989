#include "src/sampling/sampler.h"

#include <ATen/ATen.h>

namespace hotlora {

at::Tensor SamplerState::AddNoise(const at::Tensor& clean, const at::Tensor& noise) const {
  if (done()) {
    return clean;
  }
  const NoiseLevel next = level();
  return clean * next.signal + noise * next.noise;
}

void SamplerState::CheckNotDone() const { TORCH_CHECK(!done(), "sampler is done after ", steps_done(), " steps"); }

void SamplerState::CheckStep(const at::Tensor& latents, const at::Tensor& model_output) const {
  CheckNotDone();
  TORCH_CHECK(latents.sizes() == model_output.sizes(), "latents are ", latents.sizes(), ", model output ",
              model_output.sizes());
}

}  // namespace hotlora
