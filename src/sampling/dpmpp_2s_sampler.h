#ifndef HOTLORA_SRC_SAMPLING_DPMPP_2S_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_DPMPP_2S_SAMPLER_H_

#include <ATen/core/Tensor.h>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// DPM-Solver++ of second order in single steps (2S), the midpoint form, with one evaluation a step. Steps go in pairs:
// the first is of first order, and the second goes the way of both again, from where the pair began. With alpha, sigma'
// and lambda as DpmppMultistepSampler's, s where the pair began, h = lambda_next - lambda_s:
//
//   input   x
//   first   next = sigma'_next / sigma' * x + alpha_next * (1 - exp(-h)) * x0
//   D       x0_s + (x0 - x0_s) * h / (2 * (lambda - lambda_s))
//   second  next = sigma'_next / sigma'_s * x_s + alpha_next * (1 - exp(-h)) * D
//
// Pairs count from the beginning of the whole run: a tail that begins with the second of a pair takes it as of first
// order. So is a last step to sigma 0. A step between equal sigmas leaves the latents as they are.
//
// Source   Lu et al. 2022, arXiv 2211.01095, algorithm 1; diffusers DPMSolverSinglestepScheduler of order 2 with
//          algorithm_type dpmsolver++
class Dpmpp2SSampler final : public SignalSampler<StepPlan> {
 public:
  using SignalSampler::SignalSampler;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  // True if the step is the second of a pair.
  bool SecondOrder() const;

  // Where the pair began: its latents and prediction, undefined at first, and its sigma.
  at::Tensor start_, start_x0_;
  float start_sigma_ = 0.0f;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_DPMPP_2S_SAMPLER_H_
