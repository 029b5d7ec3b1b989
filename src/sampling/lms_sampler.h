#ifndef HOTLORA_SRC_SAMPLING_LMS_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_LMS_SAMPLER_H_

#include <vector>

#include <ATen/core/Tensor.h>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// The linear multistep method of order 4 at most: Adams and Bashforth's, on uneven steps.
//
//   slope   (x - x0) / sigma
//   next    x + sum over the last slopes of slope_j * integral from sigma to next of L_j
//
// L_j is the polynomial that is 1 at the j-th of the last (at most 4) noise levels and 0 at the others. The levels
// count from the beginning of the whole run, also if this is its tail: levels of steps that were cut off have no
// slopes, and their terms are left out, as in diffusers. A step between equal sigmas leaves the latents as they are.
// Inputs and x0 as EulerSampler's.
//
// Source   diffusers LMSDiscreteScheduler.step
class LmsSampler final : public SigmaSampler {
 public:
  explicit LmsSampler(StepPlan plan);
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  struct Node {
    float sigma;
    at::Tensor slope;  // undefined in a step that was cut off
  };
  void Remember(float sigma, at::Tensor slope);
  // The integral of L_j from `from` to `to`.
  double Weight(size_t j, double from, double to) const;

  std::vector<Node> nodes_;  // the latest first, at most 4, all of different sigmas
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_LMS_SAMPLER_H_
