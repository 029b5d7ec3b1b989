#include "src/sampling/dpmpp_multistep_sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

DpmppMultistepSampler::DpmppMultistepSampler(StepPlan plan, uint32_t order, NoiseSource noise)
    : SignalSampler(std::move(plan)), order_(order), noise_(std::move(noise)) {
  TORCH_CHECK(order == 2 || order == 3, "order is ", order, ", allowed are 2 and 3");
}

size_t DpmppMultistepSampler::Order() const {
  const bool few = plan_.few_steps();
  const uint32_t left = total_steps() - index_;  // this one included
  const size_t most = left == 1 && (few || plan_.sigmas[index_ + 1] == 0.0f) ? 1 : left == 2 && few ? 2 : 3;
  return std::min(most, estimates_.size());
}

at::Tensor DpmppMultistepSampler::Direction(size_t order, double h) const {
  const at::Tensor& x0 = estimates_[0].x0;
  if (order == 1) {
    return x0;
  }
  const double h_before = estimates_[0].lambda - estimates_[1].lambda;
  if (order == 2) {
    return x0 + (x0 - estimates_[1].x0) * (h / h_before / 2.0);
  }
  const double r0 = h_before / h;
  const double r1 = (estimates_[1].lambda - estimates_[2].lambda) / h;
  const at::Tensor slope = (x0 - estimates_[1].x0) / r0;
  const at::Tensor bend = (slope - (estimates_[1].x0 - estimates_[2].x0) / r1) / (r0 + r1);
  const double k = noise_ ? 2.0 * h : h;
  const double e = -std::expm1(-k);
  const double half = noise_ ? -0.5 : 0.5;
  return x0 + (slope + bend * r0) * ((1.0 - e / k) / e) + bend * ((half - (k - e) / (k * k)) / e);
}

at::Tensor DpmppMultistepSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const SignalLevel here(plan_.sigmas[index_]), target(plan_.sigmas[index_ + 1]);
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = Clean(x, model_output);
  const at::Tensor fresh = noise_ ? noise_(x.sizes()).to(x.device()) : at::Tensor();
  const double h = target.lambda - here.lambda;  // infinite if the target is sigma 0
  if (h == 0.0) {
    ++index_;
    return x;
  }
  estimates_.insert(estimates_.begin(), {x0, here.lambda});
  estimates_.resize(std::min<size_t>(estimates_.size(), order_));
  const at::Tensor d = Direction(Order(), h);
  ++index_;
  const double ratio = target.noise / here.noise;
  if (!noise_) {
    return x * ratio - d * (target.signal * std::expm1(-h));
  }
  const double kept = -std::expm1(-2.0 * h);
  return x * (ratio * std::exp(-h)) + d * (target.signal * kept) + fresh * (target.noise * std::sqrt(kept));
}

}  // namespace hotlora
