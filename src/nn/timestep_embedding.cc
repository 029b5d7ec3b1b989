#include "src/nn/timestep_embedding.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>

namespace hotlora {

at::Tensor SinusoidEmbedding(const at::Tensor& values, const SinusoidOptions& options) {
  TORCH_CHECK(values.scalar_type() == at::kFloat && values.dim() == 1, "values must be float32 [n], got ",
              values.scalar_type(), " ", values.sizes());
  const int64_t half = options.width / 2;
  at::Tensor exponent = at::arange(half, values.options()) * -std::log(10000.0);
  exponent = exponent / (static_cast<double>(half) - options.frequency_shift);
  const at::Tensor angles = values.unsqueeze(1) * exponent.exp().unsqueeze(0);  // [n, width / 2]
  return options.cosine_first ? at::cat({angles.cos(), angles.sin()}, 1) : at::cat({angles.sin(), angles.cos()}, 1);
}

TimestepEmbedding::TimestepEmbedding(const ParameterScope& scope, int64_t in, int64_t width)
    : linear_1(scope.In("linear_1"), in, width), linear_2(scope.In("linear_2"), width, width) {}

at::Tensor TimestepEmbedding::forward(const at::Tensor& x, SideBranch side) const {
  at::Tensor h = linear_1.forward(x, side);
  return linear_2.forward(at::silu_(h), side);
}

}  // namespace hotlora
