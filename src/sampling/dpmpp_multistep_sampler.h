#ifndef HOTLORA_SRC_SAMPLING_DPMPP_MULTISTEP_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_DPMPP_MULTISTEP_SAMPLER_H_

#include <vector>

#include <ATen/core/Tensor.h>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// DPM-Solver++ of second or third order from successive predictions (2M, 3M), and its stochastic variants. With
// alpha = 1 / sqrt(sigma^2 + 1), sigma' = alpha * sigma, lambda = -log(sigma), h = lambda_next - lambda, k = h and
// e = 1 - exp(-h), for the stochastic variants k = 2h and e = 1 - exp(-2h):
//
//   input  x
//   first  D = x0
//   2M     D = x0 + (x0 - x0_before) * h / (2 * h_before), the midpoint form
//   3M     D = x0 + D1 * (1 - e / k) / e + D2 * (s / 2 - (k - e) / k^2) / e, s = 1, for the stochastic ones -1, as in
//          diffusers; D1 and D2 the first and second differences of the last three predictions in lambda / h
//   next   sigma'_next / sigma' * x + alpha_next * e * D
//   SDE    next = sigma'_next / sigma' * exp(-h) * x + alpha_next * e * D + sigma'_next * sqrt(e) * noise
//
// First order at the first step, and at the last one of fewer than 15 or if it ends at sigma 0; 3M is of second order
// at the second step, and at the last but one of fewer than 15. A step between equal sigmas leaves the latents as they
// are. The stochastic variants draw noise at every step, the last included.
//
// Source   Lu et al. 2022, arXiv 2211.01095, algorithm 2 and appendix B (SDE), and arXiv 2206.00927 (third order);
//          diffusers DPMSolverMultistepScheduler with algorithm_type dpmsolver++ and sde-dpmsolver++
class DpmppMultistepSampler final : public SignalSampler<StepPlan> {
 public:
  // `order` is 2 or 3. Deterministic without `noise`, the SDE solver with it.
  DpmppMultistepSampler(StepPlan plan, uint32_t order, NoiseSource noise = nullptr);
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  struct Estimate {
    at::Tensor x0;
    double lambda = 0.0;
  };
  // The order of step index_, at most as many as there are estimates.
  size_t Order() const;
  // D of that order for a step of `h` from the latest estimate.
  at::Tensor Direction(size_t order, double h) const;

  const uint32_t order_;
  const NoiseSource noise_;
  std::vector<Estimate> estimates_;  // the latest first, at most order_
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_DPMPP_MULTISTEP_SAMPLER_H_
