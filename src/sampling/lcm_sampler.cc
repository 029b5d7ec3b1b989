#include "src/sampling/lcm_sampler.h"

#include <cmath>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

at::Tensor LcmSampler::ScaleInput(const at::Tensor& latents) const {
  CheckNotDone();
  return latents;
}

at::Tensor LcmSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  constexpr double kTimestepScaling = 10.0, kDataVariance = 0.25;
  const float alpha = plan_.alphas[index_];
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = CleanFromSignal(plan_.prediction, x, model_output, std::sqrt(alpha), std::sqrt(1.0f - alpha));
  const double scaled = plan_.timesteps[index_] * kTimestepScaling;
  const double spread = scaled * scaled + kDataVariance;
  const at::Tensor clean = x0 * (scaled / std::sqrt(spread)) + x * (kDataVariance / spread);
  const float next = plan_.next_alphas[index_];
  ++index_;
  if (done()) {
    return clean;
  }
  return clean * std::sqrt(next) + noise_(x.sizes()).to(x.device()) * std::sqrt(1.0f - next);
}

}  // namespace hotlora
