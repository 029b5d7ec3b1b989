#include "src/sampling/euler_ancestral_sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

EulerAncestralSampler::EulerAncestralSampler(StepPlan plan, NoiseSource noise)
    : SigmaSampler(std::move(plan)), noise_(std::move(noise)) {}

at::Tensor EulerAncestralSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const float sigma = plan_.sigmas[index_];
  const float target = plan_.sigmas[index_ + 1];
  // Never below 0, also if a schedule's last sigma is above the one before it.
  const float up = std::sqrt(std::max(0.0f, target * target * (sigma * sigma - target * target) / (sigma * sigma)));
  const float down = std::sqrt(std::max(0.0f, target * target - up * up));
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = Clean(x, model_output);
  const at::Tensor noise = noise_(x.sizes()).to(x.device());
  at::Tensor next = x + (x - x0) / sigma * (down - sigma) + noise * up;
  ++index_;
  return next;
}

}  // namespace hotlora
