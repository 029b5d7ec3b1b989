#include "src/sampling/lms_sampler.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

namespace hotlora {

LmsSampler::LmsSampler(StepPlan plan) : SigmaSampler(std::move(plan)) {
  for (const float sigma : plan_.earlier_sigmas) {
    if (sigma != plan_.sigmas.front() && (nodes_.empty() || sigma != nodes_.front().sigma)) {
      Remember(sigma, {});
    }
  }
}

void LmsSampler::Remember(float sigma, at::Tensor slope) {
  constexpr size_t kOrder = 4;
  nodes_.insert(nodes_.begin(), {sigma, std::move(slope)});
  if (nodes_.size() > kOrder) {
    nodes_.pop_back();
  }
}

double LmsSampler::Weight(size_t j, double from, double to) const {
  const auto polynomial = [&](double sigma) {
    double product = 1.0;
    for (size_t k = 0; k < nodes_.size(); ++k) {
      product *= k == j ? 1.0 : (sigma - nodes_[k].sigma) / (static_cast<double>(nodes_[j].sigma) - nodes_[k].sigma);
    }
    return product;
  };
  // Gauss' formula at two points is exact up to degree 3.
  const double half = (to - from) / 2.0, middle = from + half, offset = half / std::sqrt(3.0);
  return half * (polynomial(middle - offset) + polynomial(middle + offset));
}

at::Tensor LmsSampler::Step(const at::Tensor& latents, const at::Tensor& model_output) {
  CheckStep(latents, model_output);
  const at::Tensor x = latents.to(at::kFloat);
  const float here = plan_.sigmas[index_], target = plan_.sigmas[index_ + 1];
  at::Tensor next = x;
  if (here != target) {
    Remember(here, (x - Clean(x, model_output)) / here);
    for (size_t j = 0; j < nodes_.size() && nodes_[j].slope.defined(); ++j) {
      next = next + nodes_[j].slope * Weight(j, here, target);
    }
  }
  ++index_;
  return next;
}

}  // namespace hotlora
