#include "src/sdxl/image_encoder.h"

#include <array>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/tensor.h>

namespace hotlora {

ImageEncoder::ImageEncoder(const ParameterScope& scope, const ImageEncoderConfig& config) : config_(config) {
  const ParameterScope model = scope.In("vision_model"), embeddings = model.In("embeddings");
  class_embedding_ = embeddings.Take("class_embedding", {config.width});
  patch_embedding_ = embeddings.Take("patch_embedding.weight", {config.width, 3, config.patch, config.patch});
  position_embedding_ = embeddings.Take("position_embedding.weight", {config.tokens(), config.width});
  pre_layer_norm_ = LayerNorm(model.In("pre_layrnorm"), config.width, config.layer_norm_epsilon);  // spelt so
  for (int64_t i = 0; i < config.layers; ++i) {
    layers_.emplace_back(model.In("encoder.layers", i), config);
  }
  post_layer_norm_ = LayerNorm(model.In("post_layernorm"), config.width, config.layer_norm_epsilon);
  visual_projection_ = Linear(scope.In("visual_projection"), config.width, config.projection, Linear::Bias::kNone);
}

at::Tensor ImageEncoder::Normalize(const at::Tensor& pictures) const {
  const auto channels = [&pictures](const std::array<double, 3>& values) {
    return at::tensor(at::ArrayRef<double>(values), at::kDouble).to(pictures.device(), at::kFloat).view({1, 3, 1, 1});
  };
  const at::Tensor pixels = pictures.permute({0, 3, 1, 2}).to(at::kFloat) * config_.rescale;
  return ((pixels - channels(config_.mean)) / channels(config_.std)).to(class_embedding_.scalar_type());
}

EncodedPictures ImageEncoder::Encode(const at::Tensor& pixels) const {
  const at::Tensor patches = at::conv2d(pixels, patch_embedding_, {}, {config_.patch, config_.patch});
  const int64_t rows = pixels.size(0);
  at::Tensor h = at::cat({class_embedding_.expand({rows, 1, -1}), patches.flatten(2).transpose(1, 2)}, 1);
  h = pre_layer_norm_.forward(h + position_embedding_);  // [rows, tokens, width]
  for (size_t i = 0; i + 1 < layers_.size(); ++i) {
    h = layers_[i].forward(h, config_);
  }
  const at::Tensor class_token = layers_.back().forward(h, config_).select(1, 0).contiguous();
  return {h, visual_projection_.forward(post_layer_norm_.forward(class_token))};
}

}  // namespace hotlora
