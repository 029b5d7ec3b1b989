#include "src/nn/linear.h"

#include "src/nn/onednn_ops.h"
#include "src/tensor/threads_for.h"

namespace hotlora {
namespace {

ThreadsFor ThreadsForProduct(const at::Tensor& x, const at::Tensor& weight) {
  return ThreadsFor(static_cast<double>(x.numel()) * static_cast<double>(OutputsOf(weight)));
}

}  // namespace

Linear::Linear(const ParameterScope& scope, int64_t in, int64_t out, Bias has_bias) {
  const AdaptableParameter taken = scope.TakeAdaptable("weight", {out, in}, WeightOrder::kPacked);
  weight = taken.live;
  module = taken.index;
  if (has_bias == Bias::kPresent) {
    bias = scope.TakeAdaptable("bias", {out}).live;
  }
}

Linear::Linear(const ParameterScope& scope, const std::vector<std::string>& names, int64_t in, int64_t out,
               Bias has_bias)
    : modules(static_cast<int64_t>(names.size())) {
  const AdaptableParameter taken = scope.TakeStacked(names, "weight", {out, in}, WeightOrder::kPacked);
  weight = taken.live;
  module = taken.index;
  if (has_bias == Bias::kPresent) {
    bias = scope.TakeStacked(names, "bias", {out}).live;
  }
}

at::Tensor Linear::forward(const at::Tensor& x, SideBranch side) const {
  const ThreadsFor threads = ThreadsForProduct(x, weight);
  at::Tensor y = Product(x, weight, bias);
  AddSideLinear(side, module, modules, x, bias, y);
  return y;
}

void Linear::forward_into(const at::Tensor& x, SideBranch side, at::Tensor y) const {
  const ThreadsFor threads = ThreadsForProduct(x, weight);
  ProductInto(x, weight, bias, y);
  AddSideLinear(side, module, modules, x, bias, y);
}

}  // namespace hotlora
