#include "src/sampling/ddim_sampler.h"

#include <algorithm>
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
  const bool draws = index_ < plan_.fresh_noise.size();
  const float fresh = draws ? plan_.fresh_noise[index_] : 0.0f;
  ++index_;
  const at::Tensor mean =
      Clip(x0, plan_.clip) * std::sqrt(next) + eps * std::sqrt(std::max(0.0f, 1.0f - next - fresh * fresh));
  return draws ? mean + noise_(x.sizes()).to(x.device()) * fresh : mean;
}

}  // namespace hotlora
