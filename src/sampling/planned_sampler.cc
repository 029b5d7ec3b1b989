#include "src/sampling/planned_sampler.h"

#include <cmath>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {
namespace {

// The factors of signal and of noise at index `place` of the plan.
std::pair<double, double> LevelAt(const StepPlan& plan, uint32_t place) {
  const SignalLevel here(plan.sigmas[place]);
  return {here.signal, here.noise};
}

std::pair<double, double> LevelAt(const SignalPlan& plan, uint32_t place) {
  return {std::sqrt(plan.alphas[place]), std::sqrt(1.0f - plan.alphas[place])};
}

}  // namespace

at::Tensor SigmaSampler::ScaleInput(const at::Tensor& latents) const {
  CheckNotDone();
  const float level = sigma();
  return latents / std::sqrt(level * level + 1.0f);
}

at::Tensor SigmaSampler::Clean(const at::Tensor& latents, const at::Tensor& model_output) const {
  return CleanFromSigma(plan_.prediction, latents, model_output, sigma());
}

SamplerState::NoiseLevel SigmaSampler::level() const { return {1.0, sigma()}; }

template <typename Plan>
at::Tensor SignalSampler<Plan>::ScaleInput(const at::Tensor& latents) const {
  this->CheckNotDone();
  return latents;
}

template <typename Plan>
at::Tensor SignalSampler<Plan>::Clean(const at::Tensor& latents, const at::Tensor& model_output) const {
  const auto [signal, noise] = LevelAt(this->plan_, this->index_);
  return CleanFromSignal(this->plan_.prediction, latents, model_output, signal, noise);
}

template <typename Plan>
SamplerState::NoiseLevel SignalSampler<Plan>::level() const {
  const auto [signal, noise] = LevelAt(this->plan_, this->index_);
  return {signal, noise};
}

template class SignalSampler<StepPlan>;
template class SignalSampler<SignalPlan>;

}  // namespace hotlora
