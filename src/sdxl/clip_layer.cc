#include "src/sdxl/clip_layer.h"

#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/sigmoid.h>

#include "src/nn/attention.h"

namespace hotlora {

ClipLayer::ClipLayer(const ParameterScope& scope, const ClipConfig& config)
    : layer_norm1(scope.In("layer_norm1"), config.width, config.layer_norm_epsilon),
      layer_norm2(scope.In("layer_norm2"), config.width, config.layer_norm_epsilon),
      qkv_proj(scope.In("self_attn"), {"q_proj", "k_proj", "v_proj"}, config.width, config.width,
               Linear::Bias::kPresent),
      out_proj(scope.In("self_attn.out_proj"), config.width, config.width),
      fc1(scope.In("mlp.fc1"), config.width, config.inner_width),
      fc2(scope.In("mlp.fc2"), config.inner_width, config.width) {}

at::Tensor ClipLayer::forward(at::Tensor x, const ClipConfig& config, SideBranch side) const {
  const std::vector<at::Tensor> qkv = qkv_proj.forward(layer_norm1.forward(x), side).chunk(3, -1);
  at::Tensor h = AttendHeads(qkv[0], qkv[1], qkv[2], config.heads, config.causal ? Masking::kCausal : Masking::kNone);
  x = out_proj.forward(h, side).add_(x);  // [rows, tokens, width]
  h = fc1.forward(layer_norm2.forward(x), side);
  h = config.activation == ClipConfig::Activation::kQuickGelu ? at::sigmoid(h * 1.702).mul_(h) : at::gelu(h);
  return fc2.forward(h, side).add_(x);
}

}  // namespace hotlora
