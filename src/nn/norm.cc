#include "src/nn/norm.h"

#include <utility>

#include <ATen/ops/layer_norm.h>

#include "src/nn/fused_ops.h"

namespace hotlora {

GroupNorm::GroupNorm(const ParameterScope& scope, int64_t channels, int64_t groups, double epsilon)
    : weight(scope.TakeAdaptable("weight", {channels}).live),
      bias(scope.TakeAdaptable("bias", {channels}).live),
      groups(groups),
      epsilon(epsilon) {}

at::Tensor GroupNorm::forward(const at::Tensor& x) const {
  return FusedGroupNorm(x, {}, weight, bias, {groups, epsilon, /*silu=*/false});
}

at::Tensor GroupNorm::forward_silu(at::Tensor x, const at::Tensor& shift) const {
  return FusedGroupNorm(std::move(x), shift, weight, bias, {groups, epsilon, /*silu=*/true});
}

LayerNorm::LayerNorm(const ParameterScope& scope, int64_t width, double epsilon)
    : weight(scope.TakeAdaptable("weight", {width}).live),
      bias(scope.TakeAdaptable("bias", {width}).live),
      epsilon(epsilon) {}

at::Tensor LayerNorm::forward(const at::Tensor& x) const {
  return at::layer_norm(x, weight.sizes(), weight, bias, epsilon);
}

at::Tensor LayerNorm::forward_add(at::Tensor& x, const at::Tensor& added) const {
  return AddLayerNorm(x, added, weight, bias, epsilon);
}

}  // namespace hotlora
