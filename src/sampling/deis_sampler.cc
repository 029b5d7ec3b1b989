#include "src/sampling/deis_sampler.h"

#include <cmath>

#include <ATen/ATen.h>

#include "src/sampling/prediction.h"

namespace hotlora {
namespace {

// The integral of (log t - log zero) / (log one - log zero) from `from` to `to`. REQUIRES: all above 0.
double LogLineIntegral(double one, double zero, double from, double to) {
  const auto whole = [zero](double t) { return t * (std::log(t / zero) - 1.0); };
  return (whole(to) - whole(from)) / std::log(one / zero);
}

}  // namespace

at::Tensor DeisSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const float rho = plan_.sigmas[index_], rho_next = plan_.sigmas[index_ + 1];
  const at::Tensor x = latents.to(at::kFloat);
  const at::Tensor x0 = Clean(x, model_output);
  ++index_;
  if (rho == rho_next) {
    return x;
  }
  const SignalLevel here(rho), target(rho_next);
  const at::Tensor eps = (x - x0 * here.signal) / here.noise;
  at::Tensor change = eps * (static_cast<double>(rho_next) - rho);
  if (eps_before_.defined() && !(done() && plan_.few_steps())) {
    change = eps * LogLineIntegral(rho, rho_before_, rho, rho_next) +
             eps_before_ * LogLineIntegral(rho_before_, rho, rho, rho_next);
  }
  eps_before_ = eps;
  rho_before_ = rho;
  return (x / here.signal + change) * target.signal;
}

}  // namespace hotlora
