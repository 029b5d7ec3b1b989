#ifndef HOTLORA_SRC_SAMPLING_DDIM_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_DDIM_SAMPLER_H_

#include <utility>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// Denoising diffusion implicit models, and with a TcdPlan trajectory consistency sampling (TCD). With s the deviation
// of the fresh noise that the plan adds, 0 where it adds none:
//
//   input  x
//   x0     (x - sqrt(1 - abar) * eps) / sqrt(abar), or sqrt(abar) * x - sqrt(1 - abar) * v, or as predicted
//   eps    as predicted, or sqrt(abar) * v + sqrt(1 - abar) * x, or (x - sqrt(abar) * x0) / sqrt(1 - abar)
//   next   sqrt(abar_next) * x0 + sqrt(1 - abar_next - s^2) * eps + s * noise, x0 clipped if the plan says so
//
// Source   Song et al. 2021, arXiv 2010.02502, eq. 12; diffusers DDIMScheduler.step and TCDScheduler.step
class DdimSampler final : public SignalSampler<SignalPlan> {
 public:
  // `noise` is drawn from at the steps that the plan has fresh noise for. REQUIRES: set if there is one.
  explicit DdimSampler(SignalPlan plan, NoiseSource noise = nullptr)
      : SignalSampler(std::move(plan)), noise_(std::move(noise)) {}
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  const NoiseSource noise_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_DDIM_SAMPLER_H_
