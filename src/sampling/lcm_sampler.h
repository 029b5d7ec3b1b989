#ifndef HOTLORA_SRC_SAMPLING_LCM_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_LCM_SAMPLER_H_

#include <utility>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// Multistep sampling of a latent consistency model: to clean latents, then fresh noise up to the next level.
//
//   x0     as DdimSampler's, clipped if the plan says so
//   clean  c_out * x0 + c_skip * x,  c_skip = 0.25 / (s^2 + 0.25), c_out = s / sqrt(s^2 + 0.25), s = 10 * timestep
//   next   sqrt(abar_next) * clean + sqrt(1 - abar_next) * noise; at the last step `clean` itself
//
// Draws noise at every step but the last.
//
// Source   Luo et al. 2023, arXiv 2310.04378, algorithm 3; diffusers LCMScheduler.step
class LcmSampler final : public SignalSampler<SignalPlan> {
 public:
  LcmSampler(SignalPlan plan, NoiseSource noise) : SignalSampler(std::move(plan)), noise_(std::move(noise)) {}
  at::Tensor Clean(const at::Tensor& latents, const at::Tensor& model_output) const override;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  const NoiseSource noise_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_LCM_SAMPLER_H_
