#ifndef HOTLORA_SRC_SAMPLING_HEUN_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_HEUN_SAMPLER_H_

#include <ATen/core/Tensor.h>

#include "src/sampling/noise_schedule.h"
#include "src/sampling/sampler.h"

namespace hotlora {

// Heun's method: Euler's step, then the mean of the slopes at its two ends in place of the first one. Two evaluations
// of the network a step, except the last step, which is Euler's alone.
//
//   slope    (x - x0) / sigma, of the latents before the step
//   guess    x + slope * (next - sigma): the latents of the second evaluation, at the next timestep
//   next     x + (slope + (guess - x0') / next) / 2 * (next - sigma)
//
// Inputs and x0 as EulerSampler's.
//
// Source   Karras et al. 2022, arXiv 2206.00364, algorithm 1; diffusers HeunDiscreteScheduler.step
class HeunSampler final : public SamplerState {
 public:
  explicit HeunSampler(StepPlan plan);

  uint32_t steps_done() const override { return index_; }
  uint32_t total_steps() const override { return static_cast<uint32_t>(plan_.timesteps.size()); }
  float init_noise_sigma() const override { return plan_.init_noise_sigma; }
  float timestep() const override { return plan_.timesteps.at(place()); }
  at::Tensor ScaleInput(const at::Tensor& latents) const override;
  at::Tensor Clean(const at::Tensor& latents, const at::Tensor& model_output) const override;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  NoiseLevel level() const override;

  // Where the next evaluation is: index_ or, at a step's second evaluation, one further.
  uint32_t place() const { return index_ + (slope_.defined() ? 1 : 0); }

  const StepPlan plan_;
  uint32_t index_ = 0;
  // Between a step's two evaluations, else undefined: the latents before the step and the slope there.
  at::Tensor start_, slope_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_HEUN_SAMPLER_H_
