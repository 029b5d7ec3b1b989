#include "src/sampling/euler_sampler.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

namespace hotlora {

EulerSampler::EulerSampler(StepPlan plan) : plan_(std::move(plan)) {
  TORCH_CHECK(plan_.sigmas.size() == plan_.timesteps.size() + 1, "step plan of ", plan_.timesteps.size(),
              " timesteps has ", plan_.sigmas.size(), " sigmas");
}

at::Tensor EulerSampler::ScaleInput(const at::Tensor& latents) const {
  TORCH_CHECK(!done(), "sampler is done after ", index_, " steps");
  const float sigma = plan_.sigmas[index_];
  return latents / std::sqrt(sigma * sigma + 1.0f);
}

at::Tensor EulerSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  TORCH_CHECK(!done(), "sampler is done after ", index_, " steps");
  TORCH_CHECK(latents.sizes() == model_output.sizes(), "latents are ", latents.sizes(), ", model output ",
              model_output.sizes());
  const float sigma = plan_.sigmas[index_];
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor output = model_output.to(at::kFloat);
  at::Tensor x0;
  if (plan_.prediction == Prediction::kV) {
    const float variance = sigma * sigma + 1.0f;
    x0 = output * (-sigma / std::sqrt(variance)) + x / variance;
  } else {
    x0 = x - output * sigma;
  }
  const float dt = plan_.sigmas[index_ + 1] - sigma;
  at::Tensor next = x + (x - x0) / sigma * dt;
  ++index_;
  return next;
}

}  // namespace hotlora
