#include "src/sdxl/control_types.h"

#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/zeros.h>

namespace hotlora {
namespace {

constexpr double kLayerNormEpsilon = 1e-5;  // no config key
constexpr int64_t kExpansion = 4;           // of the transformer's hidden layer, fixed by the architecture

}  // namespace

ControlTypes::Layer::Layer(const ParameterScope& scope, int64_t width)
    : ln_1(scope.In("ln_1"), width, kLayerNormEpsilon),
      ln_2(scope.In("ln_2"), width, kLayerNormEpsilon),
      out_proj(scope.In("attn.out_proj"), width, width),
      c_fc(scope.In("mlp.c_fc"), width, kExpansion * width),
      c_proj(scope.In("mlp.c_proj"), kExpansion * width, width) {
  // Queries, keys, values; the first two have no effect.
  value_proj.weight = scope.In("attn").Take("in_proj_weight", {3 * width, width}).narrow(0, 2 * width, width);
  value_proj.bias = scope.In("attn").Take("in_proj_bias", {3 * width}).narrow(0, 2 * width, width);
}

at::Tensor ControlTypes::Layer::forward(at::Tensor x) const {
  x = out_proj.forward(value_proj.forward(ln_1.forward(x))).add_(x);
  const at::Tensor h = c_fc.forward(ln_2.forward(x));
  return c_proj.forward(at::sigmoid(h * 1.702).mul_(h)).add_(x);
}

ControlTypes::ControlTypes(const ParameterScope& scope, const ControlTypesConfig& config, int64_t width,
                           int64_t sinusoid_width, int64_t time_width)
    : config_(config),
      control_add_embedding_(scope.In("control_add_embedding"), config.count * sinusoid_width, time_width),
      task_embedding_(scope.Take("task_embedding", {config.count, width})),
      spatial_ch_projs_(scope.In("spatial_ch_projs"), width, width) {
  for (int64_t i = 0; i < config.layers; ++i) {
    layers_.emplace_back(scope.In("transformer_layes", i), width);  // so in published files
  }
}

at::Tensor ControlTypes::EmbedTypes(c10::ArrayRef<ControlledImage> images, const SinusoidEmbedding& sinusoids) const {
  int64_t rows = 0;
  for (const ControlledImage& image : images) {
    rows += image.rows;
  }
  // Filled on the device: nothing of a step comes from the host.
  const at::Tensor chosen = at::zeros({rows, config_.count}, task_embedding_.options().dtype(at::kFloat));
  int64_t first = 0;
  for (const ControlledImage& image : images) {
    for (const ControlHint& hint : image.hints) {
      TORCH_CHECK(hint.type >= 0 && hint.type < config_.count, "control type ", hint.type, " of ", config_.count);
      chosen.narrow(0, first, image.rows).narrow(1, hint.type, 1).fill_(1.0);
    }
    first += image.rows;
  }
  const at::Tensor embedded = sinusoids.forward(chosen.flatten()).to(task_embedding_.scalar_type());
  return control_add_embedding_.forward(embedded.view({rows, -1}));
}

at::Tensor ControlTypes::Fuse(c10::ArrayRef<ControlHint> hints) const {
  at::Tensor sum;
  for (const ControlHint& hint : hints) {
    const double scale = hints.size() > 1 ? hint.scale : 1.0;
    at::Tensor x = (hint.embedded.mean(at::IntArrayRef({2, 3})) + task_embedding_[hint.type]) * scale;  // [1, width]
    for (const Layer& layer : layers_) {
      x = layer.forward(std::move(x));
    }
    const at::Tensor shift = spatial_ch_projs_.forward(x).unsqueeze(-1).unsqueeze(-1);
    at::Tensor added = hint.embedded.add(shift).mul_(scale);
    sum = sum.defined() ? sum.add_(added) : std::move(added);
  }
  return sum;
}

}  // namespace hotlora
