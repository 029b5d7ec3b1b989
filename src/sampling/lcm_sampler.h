#ifndef HOTLORA_SRC_SAMPLING_LCM_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_LCM_SAMPLER_H_

#include <utility>

#include "src/sampling/noise_schedule.h"
#include "src/sampling/sampler.h"

namespace hotlora {

// Multistep sampling of a latent consistency model: to clean latents, then fresh noise up to the next level.
//
//   x0     as DdimSampler's
//   clean  c_out * x0 + c_skip * x,  c_skip = 0.25 / (s^2 + 0.25), c_out = s / sqrt(s^2 + 0.25), s = 10 * timestep
//   next   sqrt(abar_next) * clean + sqrt(1 - abar_next) * noise; at the last step `clean` itself
//
// Draws noise at every step but the last.
//
// Source   Luo et al. 2023, arXiv 2310.04378, algorithm 3; diffusers LCMScheduler.step
class LcmSampler final : public SamplerState {
 public:
  LcmSampler(SignalPlan plan, NoiseSource noise) : plan_(std::move(plan)), noise_(std::move(noise)) {}

  uint32_t steps_done() const override { return index_; }
  uint32_t total_steps() const override { return static_cast<uint32_t>(plan_.timesteps.size()); }
  float init_noise_sigma() const override { return 1.0f; }
  float timestep() const override { return plan_.timesteps.at(index_); }
  at::Tensor ScaleInput(const at::Tensor& latents) const override;
  at::Tensor Clean(const at::Tensor& latents, const at::Tensor& model_output) const override;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  NoiseLevel level() const override;

  const SignalPlan plan_;
  const NoiseSource noise_;
  uint32_t index_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_LCM_SAMPLER_H_
