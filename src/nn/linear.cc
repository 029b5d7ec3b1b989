#include "src/nn/linear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>

namespace hotlora {

Linear::Linear(const ParameterScope& scope, int64_t in, int64_t out, Bias has_bias)
    : weight(scope.TakeModuleWeight({out, in}, has_bias == Bias::kPresent)) {
  if (has_bias == Bias::kPresent) {
    bias = scope.Take("bias", {out});
  }
}

Linear::Linear(const ParameterScope& scope, const std::vector<std::string>& names, int64_t in, int64_t out,
               Bias has_bias)
    : weight(scope.TakeStackedWeights(names, {out, in}, has_bias == Bias::kPresent)) {
  if (has_bias == Bias::kPresent) {
    std::vector<at::Tensor> biases;
    for (const std::string& name : names) {
      biases.push_back(scope.In(name).Take("bias", {out}));
    }
    bias = at::cat(biases);
  }
}

at::Tensor Linear::forward(const at::Tensor& x) const { return at::linear(x, weight, bias); }

}  // namespace hotlora
