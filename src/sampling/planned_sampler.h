#ifndef HOTLORA_SRC_SAMPLING_PLANNED_SAMPLER_H_
#define HOTLORA_SRC_SAMPLING_PLANNED_SAMPLER_H_

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/sampling/noise_schedule.h"
#include "src/sampling/sampler.h"

namespace hotlora {

// A sampler that goes along a StepPlan or a SignalPlan, one place after the other.
template <typename Plan>
class PlannedSampler : public SamplerState {
 public:
  explicit PlannedSampler(Plan plan) : plan_(std::move(plan)) { CheckPlan(plan_); }

  uint32_t steps_done() const final { return index_; }
  uint32_t total_steps() const final { return static_cast<uint32_t>(plan_.timesteps.size()); }
  float init_noise_sigma() const final { return plan_.init_noise_sigma; }
  std::vector<float> timesteps(size_t most) const override {
    const auto next = plan_.timesteps.begin() + index_;
    return {next, next + static_cast<std::ptrdiff_t>(std::min<size_t>(most, plan_.timesteps.end() - next))};
  }

 protected:
  const Plan plan_;
  uint32_t index_ = 0;  // steps done
};

// One whose latents are x0 + sigma * noise; the network gets x / sqrt(sigma^2 + 1).
class SigmaSampler : public PlannedSampler<StepPlan> {
 public:
  using PlannedSampler::PlannedSampler;
  at::Tensor ScaleInput(const at::Tensor& latents) const final;
  at::Tensor Clean(const at::Tensor& latents, const at::Tensor& model_output) const final;

 protected:
  // The noise level of the next evaluation.
  virtual float sigma() const { return plan_.sigmas[index_]; }
  NoiseLevel level() const final;
};

// One whose latents have unit variance, sqrt(abar) * x0 + sqrt(1 - abar) * noise; the network gets them as they are.
template <typename Plan>
class SignalSampler : public PlannedSampler<Plan> {
 public:
  using PlannedSampler<Plan>::PlannedSampler;
  at::Tensor ScaleInput(const at::Tensor& latents) const final;
  at::Tensor Clean(const at::Tensor& latents, const at::Tensor& model_output) const override;

 protected:
  SamplerState::NoiseLevel level() const final;
};

extern template class SignalSampler<StepPlan>;
extern template class SignalSampler<SignalPlan>;

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_PLANNED_SAMPLER_H_
