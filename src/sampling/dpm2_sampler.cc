#include "src/sampling/dpm2_sampler.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

namespace hotlora {

Dpm2Sampler::Dpm2Sampler(StepPlan plan, const NoiseSchedule& schedule, NoiseSource noise)
    : TwoSlopeSampler(std::move(plan)), noise_(std::move(noise)) {
  for (size_t i = 0; i + 1 < plan_.timesteps.size(); ++i) {
    AncestralStep target(plan_.sigmas[i], plan_.sigmas[i + 1]);
    if (!noise_) {
      target.up = 0.0f;
      target.down = plan_.sigmas[i + 1];
    }
    const double next = plan_.sigmas[i + 1];
    const double middle = noise_ ? next : std::sqrt(plan_.sigmas[i] * next);
    middles_.push_back({static_cast<float>(schedule.TimestepOf(middle)), static_cast<float>(middle)});
    targets_.push_back(target);
  }
}

at::Tensor Dpm2Sampler::Finish(const at::Tensor& start, const at::Tensor&, const at::Tensor& second) {
  const AncestralStep& target = targets_[index_];
  const at::Tensor next = start + second * (target.down - plan_.sigmas[index_]);
  return noise_ ? next + noise_(next.sizes()).to(next.device()) * target.up : next;
}

}  // namespace hotlora
