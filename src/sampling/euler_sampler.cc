#include "src/sampling/euler_sampler.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

EulerSampler::EulerSampler(StepPlan plan) : plan_(std::move(plan)) { CheckPlan(plan_); }

at::Tensor EulerSampler::ScaleInput(const at::Tensor& latents) const {
  CheckNotDone();
  const float sigma = plan_.sigmas[index_];
  return latents / std::sqrt(sigma * sigma + 1.0f);
}

EulerSampler::NoiseLevel EulerSampler::level() const { return {1.0, plan_.sigmas[index_]}; }

at::Tensor EulerSampler::Clean(const at::Tensor& latents, const at::Tensor& model_output) const {
  return CleanFromSigma(plan_.prediction, latents, model_output, plan_.sigmas[index_]);
}

at::Tensor EulerSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const float sigma = plan_.sigmas[index_];
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = Clean(x, model_output);
  const float dt = plan_.sigmas[index_ + 1] - sigma;
  at::Tensor next = x + (x - x0) / sigma * dt;
  ++index_;
  return next;
}

}  // namespace hotlora
