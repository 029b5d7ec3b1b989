#ifndef HOTLORA_SRC_SAMPLING_DPMPP_2M_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_DPMPP_2M_SAMPLER_H_

#include <ATen/core/Tensor.h>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// DPM-Solver++ of second order from two successive predictions (2M), the midpoint form, and its stochastic variant.
// With alpha = 1 / sqrt(sigma^2 + 1), sigma' = alpha * sigma, lambda = -log(sigma), h = lambda_next - lambda:
//
//   input  x
//   D      x0 + (x0 - x0_before) * h / (2 * h_before); first order: x0
//   2M     next = sigma'_next / sigma' * x + alpha_next * (1 - exp(-h)) * D
//   SDE    next = sigma'_next / sigma' * exp(-h) * x + alpha_next * (1 - exp(-2h)) * D
//                 + sigma'_next * sqrt(1 - exp(-2h)) * noise
//
// First order at the first step, and at the last one of fewer than 15 or if it ends at sigma 0. A step between equal
// sigmas leaves the latents as they are. The stochastic variant draws noise at every step, the last included.
//
// Source   Lu et al. 2022, arXiv 2211.01095, algorithm 2 and appendix B (SDE); diffusers DPMSolverMultistepScheduler
//          with algorithm_type dpmsolver++ and sde-dpmsolver++
class Dpmpp2MSampler final : public SignalSampler<StepPlan> {
 public:
  // Deterministic without `noise`, the SDE solver with it.
  explicit Dpmpp2MSampler(StepPlan plan, NoiseSource noise = nullptr);
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  const NoiseSource noise_;
  // The prediction before, undefined at first, and the lambda it was made at.
  at::Tensor x0_before_;
  double lambda_before_ = 0.0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_DPMPP_2M_SAMPLER_H_
