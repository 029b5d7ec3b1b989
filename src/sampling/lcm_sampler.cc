#include "src/sampling/lcm_sampler.h"

#include <cmath>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

at::Tensor LcmSampler::Clean(const at::Tensor& latents, const at::Tensor& model_output) const {
  constexpr double kTimestepScaling = 10.0, kDataVariance = 0.25;
  const NoiseLevel here = level();
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = Clip(CleanFromSignal(plan_.prediction, x, model_output, here.signal, here.noise), plan_.clip);
  const double scaled = plan_.timesteps[index_] * kTimestepScaling;
  const double spread = scaled * scaled + kDataVariance;
  return x0 * (scaled / std::sqrt(spread)) + x * (kDataVariance / spread);
}

at::Tensor LcmSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const at::Tensor clean = Clean(latents, model_output);
  const float next = plan_.next_alphas[index_];
  ++index_;
  if (done()) {
    return clean;
  }
  return clean * std::sqrt(next) + noise_(clean.sizes()).to(clean.device()) * std::sqrt(1.0f - next);
}

}  // namespace hotlora
