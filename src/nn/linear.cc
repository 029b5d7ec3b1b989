#include "src/nn/linear.h"

#include <ATen/ops/linear.h>

namespace hotlora {

Linear::Linear(const ParameterScope& scope, int64_t in, int64_t out, Bias has_bias)
    : weight(scope.TakeAdaptable("weight", {out, in})) {
  if (has_bias == Bias::kPresent) {
    bias = scope.TakeAdaptable("bias", {out});
  }
}

Linear::Linear(const ParameterScope& scope, const std::vector<std::string>& names, int64_t in, int64_t out,
               Bias has_bias)
    : weight(scope.TakeStacked(names, "weight", {out, in})) {
  if (has_bias == Bias::kPresent) {
    bias = scope.TakeStacked(names, "bias", {out});
  }
}

at::Tensor Linear::forward(const at::Tensor& x) const { return at::linear(x, weight, bias); }

}  // namespace hotlora
