#ifndef HOTLORA_SRC_SAMPLING_DDIM_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_DDIM_SAMPLER_H_

#include <utility>

#include "src/sampling/noise_schedule.h"
#include "src/sampling/sampler.h"

namespace hotlora {

// Denoising diffusion implicit models, without added noise (eta 0):
//
//   input  x
//   x0     (x - sqrt(1 - abar) * eps) / sqrt(abar), or sqrt(abar) * x - sqrt(1 - abar) * v
//   eps    as predicted, or sqrt(abar) * v + sqrt(1 - abar) * x
//   next   sqrt(abar_next) * x0 + sqrt(1 - abar_next) * eps
//
// x0 is not clipped, whatever the checkpoint's clip_sample: latents are not limited to [-1, 1].
//
// Source   Song et al. 2021, arXiv 2010.02502, eq. 12; diffusers DDIMScheduler.step
class DdimSampler final : public SamplerState {
 public:
  explicit DdimSampler(SignalPlan plan) : plan_(std::move(plan)) {}

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
  uint32_t index_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_DDIM_SAMPLER_H_
