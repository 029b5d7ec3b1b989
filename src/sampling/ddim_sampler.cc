#include "src/sampling/ddim_sampler.h"

#include <cmath>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {

at::Tensor DdimSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const auto [signal, noise] = level();
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor output = model_output.to(at::kFloat);
  const at::Tensor x0 = Clean(x, output);
  const at::Tensor eps = plan_.prediction == Prediction::kV        ? output * signal + x * noise
                         : plan_.prediction == Prediction::kSample ? (x - x0 * signal) / noise
                                                                   : output;
  const float next = plan_.next_alphas[index_];
  ++index_;
  return Clip(x0, plan_.clip) * std::sqrt(next) + eps * std::sqrt(1.0f - next);
}

}  // namespace hotlora
