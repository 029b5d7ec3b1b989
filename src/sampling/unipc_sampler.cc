#include "src/sampling/unipc_sampler.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

at::Tensor UniPcSampler::Correct(const at::Tensor& x0_here) const {
  const SignalLevel from(plan_.sigmas[start_index_]), to(plan_.sigmas[index_]);
  const double h = to.lambda - from.lambda;
  const double e = std::expm1(-h);
  at::Tensor change = (x0_here - last_.x0) * 0.5;
  if (order_ == 2) {
    const double p1 = e / -h - 1.0;
    const double p2 = p1 / -h - 0.5;
    const double r = (before_last_.lambda - last_.lambda) / h;
    const double a = (p1 / e - 2.0 * p2 / e) / (1.0 - r);
    const double c = p1 / e - a;
    change = (before_last_.x0 - last_.x0) * (a / r) + (x0_here - last_.x0) * c;
  }
  return start_ * (to.noise / from.noise) - (last_.x0 + change) * (to.signal * e);
}

at::Tensor UniPcSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const SignalLevel here(plan_.sigmas[index_]), target(plan_.sigmas[index_ + 1]);
  at::Tensor x = latents.to(at::kFloat);
  const double h = target.lambda - here.lambda;  // infinite if the target is sigma 0
  if (h == 0.0) {
    ++index_;
    return x;
  }
  const at::Tensor x0 = Clean(x, model_output);
  if (start_.defined()) {
    x = Correct(x0);
  }
  before_last_ = std::exchange(last_, {x0, here.lambda});
  order_ = before_last_.x0.defined() && index_ + 1 < total_steps() ? 2 : 1;
  start_ = x;
  start_index_ = index_;
  at::Tensor mean = x0;
  if (order_ == 2) {
    const double r = (before_last_.lambda - here.lambda) / h;
    mean = x0 + (before_last_.x0 - x0) * (0.5 / r);
  }
  ++index_;
  return x * (target.noise / here.noise) - mean * (target.signal * std::expm1(-h));
}

}  // namespace hotlora
