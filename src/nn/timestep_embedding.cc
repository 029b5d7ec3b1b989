#include "src/nn/timestep_embedding.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>

namespace hotlora {

SinusoidEmbedding::SinusoidEmbedding(const SinusoidOptions& options, c10::Device device)
    : cosine_first_(options.cosine_first) {
  const int64_t half = options.width / 2;
  at::Tensor exponent = at::arange(half, at::TensorOptions(at::kFloat)) * -std::log(10000.0);
  exponent = exponent / (static_cast<double>(half) - options.frequency_shift);
  frequencies_ = exponent.exp().unsqueeze(0).to(device);
}

at::Tensor SinusoidEmbedding::forward(const at::Tensor& values) const {
  TORCH_CHECK(values.scalar_type() == at::kFloat && values.dim() == 1, "values must be float32 [n], got ",
              values.scalar_type(), " ", values.sizes());
  const at::Tensor angles = values.unsqueeze(1) * frequencies_;  // [n, width / 2]
  return cosine_first_ ? at::cat({angles.cos(), angles.sin()}, 1) : at::cat({angles.sin(), angles.cos()}, 1);
}

TimestepEmbedding::TimestepEmbedding(const ParameterScope& scope, int64_t in, int64_t width)
    : linear_1(scope.In("linear_1"), in, width), linear_2(scope.In("linear_2"), width, width) {}

at::Tensor TimestepEmbedding::forward(const at::Tensor& x, SideBranch side) const {
  at::Tensor h = linear_1.forward(x, side);
  return linear_2.forward(at::silu_(h), side);
}

}  // namespace hotlora
