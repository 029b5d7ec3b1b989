#include "src/sampling/heun_sampler.h"

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

at::Tensor HeunSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const at::Tensor x = latents.to(at::kFloat);
  const float sigma = plan_.sigmas[place()];
  const at::Tensor slope = (x - Clip(Clean(x, model_output), plan_.clip)) / sigma;
  const float dt = plan_.sigmas[index_ + 1] - plan_.sigmas[index_];
  if (slope_.defined()) {
    at::Tensor next = start_ + (slope_ + slope) / 2 * dt;
    start_ = slope_ = at::Tensor();
    ++index_;
    return next;
  }
  if (index_ + 1 < total_steps()) {
    start_ = x;
    slope_ = slope;
  } else {
    ++index_;
  }
  return x + slope * dt;
}

}  // namespace hotlora
