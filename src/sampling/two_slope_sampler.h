#ifndef HOTLORA_SRC_SAMPLING_TWO_SLOPE_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_TWO_SLOPE_SAMPLER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// A sampler of two evaluations of the network a step, except the last step, which is Euler's alone:
//
//   slope   (x - x0) / sigma, of the latents before the step
//   guess   x + slope * (sigma' - sigma): the latents of the second evaluation, at sigma'
//   next    what the sampler makes of both slopes
//
// Inputs and x0 as EulerSampler's, x0 clipped if the plan says so.
class TwoSlopeSampler : public SigmaSampler {
 public:
  using SigmaSampler::SigmaSampler;
  std::vector<float> timesteps(size_t most) const final;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) final;

 protected:
  // Where the second evaluation of `step` is. REQUIRES: not the last step.
  struct Evaluation {
    float timestep, sigma;
  };
  virtual Evaluation second(uint32_t step) const = 0;

  // The latents after step index_, from those before it and the slopes of its two evaluations.
  virtual at::Tensor Finish(const at::Tensor& start, const at::Tensor& first, const at::Tensor& second) = 0;

 private:
  float sigma() const final;

  // Between a step's two evaluations, else undefined: the latents before the step and the slope there.
  at::Tensor start_, slope_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_TWO_SLOPE_SAMPLER_H_
