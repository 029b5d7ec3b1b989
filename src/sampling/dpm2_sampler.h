#ifndef HOTLORA_SRC_SAMPLING_DPM2_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_DPM2_SAMPLER_H_

#include <vector>

#include "src/sampling/ancestral_step.h"
#include "src/sampling/two_slope_sampler.h"

namespace hotlora {

// DPM-Solver-2, as Karras et al. write it, and its ancestral form: the slope in the middle of a step, between its two
// ends in the logarithm of sigma, is that of the whole step.
//
//   middle      sqrt(sigma * next); of the ancestral form sqrt(sigma * down), which is next
//   next        x + slope' * (next - sigma)
//   ancestral   x + slope' * (down - sigma) + up * noise, down and up by AncestralStep
//
// The ancestral form draws noise at the second evaluation of every step; the last step, Euler's alone, has none.
//
// Source   Lu et al. 2022, arXiv 2206.00927 (DPM-Solver-2); Karras et al. 2022, arXiv 2206.00364; diffusers
//          KDPM2DiscreteScheduler and KDPM2AncestralDiscreteScheduler
class Dpm2Sampler final : public TwoSlopeSampler {
 public:
  // `plan` is of `schedule`, which says at which timesteps the middles are. Ancestral with `noise`.
  Dpm2Sampler(StepPlan plan, const NoiseSchedule& schedule, NoiseSource noise = nullptr);

 private:
  Evaluation second(uint32_t step) const override { return middles_[step]; }
  at::Tensor Finish(const at::Tensor& start, const at::Tensor& first, const at::Tensor& second) override;

  const NoiseSource noise_;
  // Every step but the last has both: where its second evaluation is, and where it goes to.
  std::vector<Evaluation> middles_;
  std::vector<AncestralStep> targets_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_DPM2_SAMPLER_H_
