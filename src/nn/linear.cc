#include "src/nn/linear.h"

#include <ATen/ops/linear.h>

namespace hotlora {

Linear::Linear(const ParameterScope& scope, int64_t in, int64_t out, Bias has_bias)
    : weight(scope.TakeModuleWeight({out, in}, has_bias == Bias::kPresent)) {
  if (has_bias == Bias::kPresent) {
    bias = scope.Take("bias", {out});
  }
}

at::Tensor Linear::forward(const at::Tensor& x) const { return at::linear(x, weight, bias); }

}  // namespace hotlora
