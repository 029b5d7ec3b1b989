#include "src/sampling/euler_ancestral_sampler.h"

#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/ancestral_step.h"

namespace hotlora {

EulerAncestralSampler::EulerAncestralSampler(StepPlan plan, NoiseSource noise)
    : SigmaSampler(std::move(plan)), noise_(std::move(noise)) {}

at::Tensor EulerAncestralSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const float sigma = plan_.sigmas[index_];
  const auto [up, down] = AncestralStep(sigma, plan_.sigmas[index_ + 1]);
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = Clean(x, model_output);
  const at::Tensor noise = noise_(x.sizes()).to(x.device());
  at::Tensor next = x + (x - x0) / sigma * (down - sigma) + noise * up;
  ++index_;
  return next;
}

}  // namespace hotlora
