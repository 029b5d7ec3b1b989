#include "src/sampling/ddim_sampler.h"

#include <cmath>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

at::Tensor DdimSampler::ScaleInput(const at::Tensor& latents) const {
  CheckNotDone();
  return latents;
}

DdimSampler::NoiseLevel DdimSampler::level() const {
  return {std::sqrt(plan_.alphas[index_]), std::sqrt(1.0f - plan_.alphas[index_])};
}

at::Tensor DdimSampler::Clean(const at::Tensor& latents, const at::Tensor& model_output) const {
  const NoiseLevel here = level();
  return CleanFromSignal(plan_.prediction, latents, model_output, here.signal, here.noise);
}

at::Tensor DdimSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const auto [signal, noise] = level();
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor output = model_output.to(at::kFloat);
  const at::Tensor x0 = Clean(x, output);
  const at::Tensor eps = plan_.prediction == Prediction::kV ? output * signal + x * noise : output;
  const float next = plan_.next_alphas[index_];
  ++index_;
  return x0 * std::sqrt(next) + eps * std::sqrt(1.0f - next);
}

}  // namespace hotlora
