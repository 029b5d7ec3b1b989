#ifndef HOTLORA_SRC_SAMPLING_DDIM_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_DDIM_SAMPLER_H_

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// Denoising diffusion implicit models, without added noise (eta 0):
//
//   input  x
//   x0     (x - sqrt(1 - abar) * eps) / sqrt(abar), or sqrt(abar) * x - sqrt(1 - abar) * v, or as predicted
//   eps    as predicted, or sqrt(abar) * v + sqrt(1 - abar) * x, or (x - sqrt(abar) * x0) / sqrt(1 - abar)
//   next   sqrt(abar_next) * x0 + sqrt(1 - abar_next) * eps, x0 clipped if the plan says so
//
// Source   Song et al. 2021, arXiv 2010.02502, eq. 12; diffusers DDIMScheduler.step
class DdimSampler final : public SignalSampler<SignalPlan> {
 public:
  using SignalSampler::SignalSampler;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_DDIM_SAMPLER_H_
