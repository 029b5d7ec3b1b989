#ifndef HOTLORA_SRC_SAMPLING_HEUN_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_HEUN_SAMPLER_H_

#include "src/sampling/two_slope_sampler.h"

namespace hotlora {

// Heun's method: Euler's step, then the mean of the slopes at its two ends in place of the first one.
//
//   next     x + (slope + (guess - x0') / next) / 2 * (next - sigma), the second evaluation at the step's end
//
// Source   Karras et al. 2022, arXiv 2206.00364, algorithm 1; diffusers HeunDiscreteScheduler.step
class HeunSampler final : public TwoSlopeSampler {
 public:
  using TwoSlopeSampler::TwoSlopeSampler;

 private:
  Evaluation second(uint32_t step) const override { return {plan_.timesteps[step + 1], plan_.sigmas[step + 1]}; }
  at::Tensor Finish(const at::Tensor& start, const at::Tensor& first, const at::Tensor& second) override;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_HEUN_SAMPLER_H_
