#ifndef HOTLORA_SRC_SAMPLING_EULER_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_EULER_SAMPLER_H_

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// Euler's method, without added noise:
//
//   input  x / sqrt(sigma^2 + 1)
//   x0     x - sigma * eps, or with v-prediction x / (sigma^2 + 1) - v * sigma / sqrt(sigma^2 + 1)
//   next   x + (x - x0) / sigma * (sigma_next - sigma)
//
// Source   Karras et al. 2022, arXiv 2206.00364, algorithm 2 with no churn; diffusers EulerDiscreteScheduler.step
class EulerSampler final : public SigmaSampler {
 public:
  using SigmaSampler::SigmaSampler;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_EULER_SAMPLER_H_
