#ifndef HOTLORA_SRC_SAMPLING_EULER_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_EULER_SAMPLER_H_

#include "src/sampling/noise_schedule.h"
#include "src/sampling/sampler.h"

namespace hotlora {

// Euler's method, without added noise:
//
//   input  x / sqrt(sigma^2 + 1)
//   x0     x - sigma * eps, or with v-prediction x / (sigma^2 + 1) - v * sigma / sqrt(sigma^2 + 1)
//   next   x + (x - x0) / sigma * (sigma_next - sigma)
//
// Source   Karras et al. 2022, arXiv 2206.00364, algorithm 2 with no churn; diffusers EulerDiscreteScheduler.step
class EulerSampler final : public SamplerState {
 public:
  explicit EulerSampler(StepPlan plan);

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
  uint32_t index_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_EULER_SAMPLER_H_
