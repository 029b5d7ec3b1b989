#ifndef HOTLORA_SRC_SAMPLING_UNIPC_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_UNIPC_SAMPLER_H_

#include <ATen/core/Tensor.h>

#include "src/sampling/planned_sampler.h"

namespace hotlora {

// UniPC of second order, the B2(h) form on predictions of x0: each evaluation first corrects the latents it was made
// at, then predicts the next ones. With sigma', alpha, lambda and h as DpmppMultistepSampler's, e = exp(-h) - 1,
// r = (lambda_before - lambda) / h and D = (x0_before - x0) / r:
//
//   predict  sigma'_next / sigma' * x - alpha_next * e * (x0 + D / 2); first order: without D
//   correct  sigma'_next / sigma' * x - alpha_next * e * (x0 + a * D + c * (x0_next - x0)), of the step before, with
//            c = 1/2 if that was of first order, else a and c from a + c = b1, r * a + c = b2
//   b1, b2   p1 / e, 2 * p2 / e,  p1 = e / -h - 1, p2 = p1 / -h - 1/2
//
// First order at the first and the last step. A step between equal sigmas leaves the latents as they are.
//
// Source   Zhao et al. 2023, arXiv 2302.04867, algorithms 1 and 2; diffusers UniPCMultistepScheduler (solver_order 2,
//          bh2, predict_x0, lower_order_final)
class UniPcSampler final : public SignalSampler<StepPlan> {
 public:
  using SignalSampler::SignalSampler;
  at::Tensor Step(const at::Tensor& latents, const at::Tensor& model_output) override;

 private:
  struct PastPrediction {
    at::Tensor x0;
    double lambda = 0.0;
  };

  // The latents at the current step, corrected by the prediction that was made there.
  at::Tensor Correct(const at::Tensor& x0_here) const;

  PastPrediction last_, before_last_;  // undefined tensors if there is none
  // The step that the next evaluation corrects: its latents, its order and where it began. Undefined at first.
  at::Tensor start_;
  int order_ = 1;
  uint32_t start_index_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_UNIPC_SAMPLER_H_
