#include "src/sampling/two_slope_sampler.h"

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

std::vector<float> TwoSlopeSampler::timesteps(size_t most) const {
  std::vector<float> next;
  for (uint32_t step = index_; step < total_steps() && next.size() < most; ++step) {
    if (step > index_ || !slope_.defined()) {
      next.push_back(plan_.timesteps[step]);
    }
    if (step + 1 < total_steps() && next.size() < most) {
      next.push_back(second(step).timestep);
    }
  }
  return next;
}

float TwoSlopeSampler::sigma() const { return slope_.defined() ? second(index_).sigma : SigmaSampler::sigma(); }

at::Tensor TwoSlopeSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const at::Tensor x = latents.to(at::kFloat);
  const float here = sigma();
  const at::Tensor slope = (x - Clip(Clean(x, model_output), plan_.clip)) / here;
  if (slope_.defined()) {
    at::Tensor next = Finish(start_, slope_, slope);
    start_ = slope_ = at::Tensor();
    ++index_;
    return next;
  }
  if (index_ + 1 < total_steps()) {
    start_ = x;
    slope_ = slope;
    return x + slope * (second(index_).sigma - here);
  }
  ++index_;
  return x + slope * (plan_.sigmas[index_] - here);
}

}  // namespace hotlora
