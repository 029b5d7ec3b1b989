#ifndef HOTLORA_SRC_SAMPLING_EULER_ANCESTRAL_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_EULER_ANCESTRAL_SAMPLER_H_

#include "src/sampling/noise_schedule.h"
#include "src/sampling/sampler.h"

namespace hotlora {

// Euler's method to a noise level below the next one, then fresh noise up to it:
//
//   up     sqrt(next^2 * (sigma^2 - next^2) / sigma^2)
//   down   sqrt(next^2 - up^2)
//   next   x + (x - x0) / sigma * (down - sigma) + up * noise
//
// Inputs and x0 as EulerSampler's; on Karras and exponential plans too, which diffusers ignores here. Draws noise at
// every step, the last included, where its weight is 0.
//
// Source   Song et al. 2021, arXiv 2011.13456, appendix F (ancestral sampling of a variance-exploding process);
//          diffusers EulerAncestralDiscreteScheduler.step
class EulerAncestralSampler final : public SamplerState {
 public:
  EulerAncestralSampler(StepPlan plan, NoiseSource noise);

  uint32_t steps_done() const override { return index_; }
  uint32_t total_steps() const override { return static_cast<uint32_t>(plan_.timesteps.size()); }
  float init_noise_sigma() const override { return plan_.init_noise_sigma; }
  float timestep() const override { return plan_.timesteps.at(index_); }
  at::Tensor ScaleInput(const at::Tensor& latents) const override;
  at::Tensor Clean(const at::Tensor& latents, const at::Tensor& model_output) const override;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  NoiseLevel level() const override;

  const StepPlan plan_;
  const NoiseSource noise_;
  uint32_t index_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_EULER_ANCESTRAL_SAMPLER_H_
