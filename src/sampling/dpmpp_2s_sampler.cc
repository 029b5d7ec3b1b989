#include "src/sampling/dpmpp_2s_sampler.h"

#include <cmath>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

bool Dpmpp2SSampler::SecondOrder() const {
  const size_t place = plan_.earlier_sigmas.size() + index_;
  const float next = plan_.sigmas[index_ + 1];
  return start_.defined() && place % 2 == 1 && next != 0.0f && start_sigma_ != plan_.sigmas[index_];
}

at::Tensor Dpmpp2SSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = Clean(x, model_output);
  const bool second = SecondOrder();
  const SignalLevel here(plan_.sigmas[index_]), target(plan_.sigmas[index_ + 1]);
  if (!second) {
    start_ = x;
    start_x0_ = x0;
    start_sigma_ = plan_.sigmas[index_];
  }
  ++index_;
  const SignalLevel start(start_sigma_);
  const double h = target.lambda - start.lambda;  // infinite if the target is sigma 0
  if (h == 0.0) {
    return x;
  }
  at::Tensor d = start_x0_;
  if (second) {
    d = d + (x0 - start_x0_) * (h / (here.lambda - start.lambda) / 2.0);
  }
  return start_ * (target.noise / start.noise) - d * (target.signal * std::expm1(-h));
}

}  // namespace hotlora
