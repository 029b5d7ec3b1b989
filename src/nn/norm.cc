#include "src/nn/norm.h"

#include <ATen/ops/group_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/silu.h>

namespace hotlora {

GroupNorm::GroupNorm(const ParameterScope& scope, int64_t channels, int64_t groups, double epsilon)
    : weight(scope.TakeAdaptable("weight", {channels}).live),
      bias(scope.TakeAdaptable("bias", {channels}).live),
      groups(groups),
      epsilon(epsilon) {}

at::Tensor GroupNorm::forward(const at::Tensor& x) const { return at::group_norm(x, groups, weight, bias, epsilon); }

at::Tensor GroupNorm::forward_silu(const at::Tensor& x) const {
  at::Tensor y = forward(x);
  return at::silu_(y);
}

LayerNorm::LayerNorm(const ParameterScope& scope, int64_t width, double epsilon)
    : weight(scope.TakeAdaptable("weight", {width}).live),
      bias(scope.TakeAdaptable("bias", {width}).live),
      epsilon(epsilon) {}

at::Tensor LayerNorm::forward(const at::Tensor& x) const {
  return at::layer_norm(x, weight.sizes(), weight, bias, epsilon);
}

}  // namespace hotlora
