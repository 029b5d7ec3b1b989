#ifndef HOTLORA_SRC_SAMPLING_EULER_ANCESTRAL_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_EULER_ANCESTRAL_SAMPLER_H_

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// Euler's method to a noise level below the next one, then fresh noise up to it, by AncestralStep:
//
//   next   x + (x - x0) / sigma * (down - sigma) + up * noise
//
// Inputs and x0 as EulerSampler's; on Karras and exponential plans too, which diffusers ignores here. Draws noise at
// every step, the last included, where its weight is 0.
//
// Source   diffusers EulerAncestralDiscreteScheduler.step
class EulerAncestralSampler final : public SigmaSampler {
 public:
  EulerAncestralSampler(StepPlan plan, NoiseSource noise);
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  const NoiseSource noise_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_EULER_ANCESTRAL_SAMPLER_H_
