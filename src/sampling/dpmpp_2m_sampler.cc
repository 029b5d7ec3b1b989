#include "src/sampling/dpmpp_2m_sampler.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

Dpmpp2MSampler::Dpmpp2MSampler(StepPlan plan, NoiseSource noise)
    : SignalSampler(std::move(plan)), noise_(std::move(noise)) {}

at::Tensor Dpmpp2MSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  constexpr uint32_t kFewSteps = 15;
  const SignalLevel here(plan_.sigmas[index_]), target(plan_.sigmas[index_ + 1]);
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = Clean(x, model_output);
  const at::Tensor fresh = noise_ ? noise_(x.sizes()).to(x.device()) : at::Tensor();
  ++index_;
  const double h = target.lambda - here.lambda;  // infinite if the target is sigma 0
  if (h == 0.0) {
    return x;
  }
  const bool first_order =
      !x0_before_.defined() || (done() && (plan_.run_steps < kFewSteps || plan_.sigmas[index_] == 0.0f));
  at::Tensor d = x0;
  if (!first_order) {
    d = x0 + (x0 - x0_before_) * (h / (here.lambda - lambda_before_) / 2.0);
  }
  x0_before_ = x0;
  lambda_before_ = here.lambda;
  const double ratio = target.noise / here.noise;
  if (!noise_) {
    return x * ratio - d * (target.signal * std::expm1(-h));
  }
  const double kept = -std::expm1(-2.0 * h);
  return x * (ratio * std::exp(-h)) + d * (target.signal * kept) + fresh * (target.noise * std::sqrt(kept));
}

}  // namespace hotlora
