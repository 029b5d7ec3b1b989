#ifndef HOTLORA_SRC_SAMPLING_HEUN_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_HEUN_SAMPLER_H_

#include <ATen/core/Tensor.h>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// Heun's method: Euler's step, then the mean of the slopes at its two ends in place of the first one. Two evaluations
// of the network a step, except the last step, which is Euler's alone.
//
//   slope    (x - x0) / sigma, of the latents before the step
//   guess    x + slope * (next - sigma): the latents of the second evaluation, at the next timestep
//   next     x + (slope + (guess - x0') / next) / 2 * (next - sigma)
//
// Inputs and x0 as EulerSampler's, x0 clipped if the plan says so.
//
// Source   Karras et al. 2022, arXiv 2206.00364, algorithm 1; diffusers HeunDiscreteScheduler.step
class HeunSampler final : public SigmaSampler {
 public:
  using SigmaSampler::SigmaSampler;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  // At a step's second evaluation one further.
  uint32_t place() const override { return index_ + (slope_.defined() ? 1 : 0); }

  // Between a step's two evaluations, else undefined: the latents before the step and the slope there.
  at::Tensor start_, slope_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_HEUN_SAMPLER_H_
