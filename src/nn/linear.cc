#include "src/nn/linear.h"

#include <ATen/ops/linear.h>

namespace hotlora {

Linear::Linear(const ParameterScope& scope, int64_t in, int64_t out, Bias has_bias) {
  const AdaptableParameter taken = scope.TakeAdaptable("weight", {out, in});
  weight = taken.live;
  module = taken.index;
  if (has_bias == Bias::kPresent) {
    bias = scope.TakeAdaptable("bias", {out}).live;
  }
}

Linear::Linear(const ParameterScope& scope, const std::vector<std::string>& names, int64_t in, int64_t out,
               Bias has_bias)
    : modules(static_cast<int64_t>(names.size())) {
  const AdaptableParameter taken = scope.TakeStacked(names, "weight", {out, in});
  weight = taken.live;
  module = taken.index;
  if (has_bias == Bias::kPresent) {
    bias = scope.TakeStacked(names, "bias", {out}).live;
  }
}

at::Tensor Linear::forward(const at::Tensor& x, SideBranch side) const {
  at::Tensor y = at::linear(x, weight, bias);
  AddSideLinear(side, module, modules, x, bias, y);
  return y;
}

}  // namespace hotlora
