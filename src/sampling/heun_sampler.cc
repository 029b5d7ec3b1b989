#include "src/sampling/heun_sampler.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

HeunSampler::HeunSampler(StepPlan plan) : plan_(std::move(plan)) { CheckPlan(plan_); }

at::Tensor HeunSampler::ScaleInput(const at::Tensor& latents) const {
  CheckNotDone();
  const float sigma = plan_.sigmas[place()];
  return latents / std::sqrt(sigma * sigma + 1.0f);
}

HeunSampler::NoiseLevel HeunSampler::level() const { return {1.0, plan_.sigmas[place()]}; }

at::Tensor HeunSampler::Clean(const at::Tensor& latents, const at::Tensor& model_output) const {
  return CleanFromSigma(plan_.prediction, latents, model_output, plan_.sigmas[place()]);
}

at::Tensor HeunSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const at::Tensor x = latents.to(at::kFloat);
  const float sigma = plan_.sigmas[place()];
  const at::Tensor slope = (x - Clean(x, model_output)) / sigma;
  const float dt = plan_.sigmas[index_ + 1] - plan_.sigmas[index_];
  if (slope_.defined()) {
    at::Tensor next = start_ + (slope_ + slope) / 2 * dt;
    start_ = slope_ = at::Tensor();
    ++index_;
    return next;
  }
  if (index_ + 1 < total_steps()) {
    start_ = x;
    slope_ = slope;
  } else {
    ++index_;
  }
  return x + slope * dt;
}

}  // namespace hotlora
