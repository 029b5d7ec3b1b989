#include "src/sampling/ddim_sampler.h"

#include <cmath>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

at::Tensor DdimSampler::ScaleInput(const at::Tensor& latents) const {
  CheckNotDone();
  return latents;
}

at::Tensor DdimSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const double signal = std::sqrt(plan_.alphas[index_]);
  const double noise = std::sqrt(1.0f - plan_.alphas[index_]);
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor output = model_output.to(at::kFloat);
  const at::Tensor x0 = CleanFromSignal(plan_.prediction, x, output, signal, noise);
  const at::Tensor eps = plan_.prediction == Prediction::kV ? output * signal + x * noise : output;
  const float next = plan_.next_alphas[index_];
  ++index_;
  return x0 * std::sqrt(next) + eps * std::sqrt(1.0f - next);
}

}  // namespace hotlora
