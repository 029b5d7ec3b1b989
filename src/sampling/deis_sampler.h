#ifndef HOTLORA_SRC_SAMPLING_DEIS_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_DEIS_SAMPLER_H_

#include <ATen/core/Tensor.h>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// DEIS of second order at most, with polynomials in log(rho), where rho = sigma:
//
//   input   x; eps = (x - alpha * x0) / sigma', alpha = 1 / sqrt(sigma^2 + 1), sigma' = alpha * sigma
//   first   next = alpha_next * (x / alpha + (rho_next - rho) * eps)
//   second  next = alpha_next * (x / alpha + c * eps + c_before * eps_before)
//   c       integral from rho to rho_next of (log t - log rho_before) / (log rho - log rho_before), c_before likewise
//
// First order at the first step, and at the last one of a run of fewer than 15. A step between equal sigmas leaves the
// latents as they are.
//
// Source   Zhang and Chen 2022, arXiv 2204.13902 (log-rho); diffusers DEISMultistepScheduler of order 2
class DeisSampler final : public SignalSampler<StepPlan> {
 public:
  using SignalSampler::SignalSampler;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  // The step before had these; undefined at first.
  at::Tensor eps_before_;
  double rho_before_ = 0.0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_DEIS_SAMPLER_H_
