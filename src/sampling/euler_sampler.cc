#include "src/sampling/euler_sampler.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

at::Tensor EulerSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const float sigma = plan_.sigmas[index_];
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = Clean(x, model_output);
  const float dt = plan_.sigmas[index_ + 1] - sigma;
  at::Tensor next = x + (x - x0) / sigma * dt;
  ++index_;
  return next;
}

}  // namespace hotlora
