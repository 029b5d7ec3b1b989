#include "src/sdxl/image_prompt.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

namespace hotlora {
namespace {

constexpr double kLayerNormEpsilon = 1e-5;

}  // namespace

ImagePrompt::ImagePrompt(const ParameterScope& scope, const ImagePromptConfig& config) : config_(config) {
  const ParameterScope projection = scope.In("image_proj");
  if (config.kind == ImagePromptConfig::Kind::kPlus) {
    resampler_ = Resampler(projection, config);
  } else {
    proj_ = Linear(projection.In("proj"), config.encoder_width, config.tokens * config.context_width);
    norm_ = LayerNorm(projection.In("norm"), config.context_width, kLayerNormEpsilon);
  }
  for (const CrossAttentionPlace& place : config.places) {
    keys_values_.emplace_back(scope.In("ip_adapter", place.number), std::vector<std::string>{"to_k_ip", "to_v_ip"},
                              config.context_width, place.width, Linear::Bias::kNone);
  }
}

at::Tensor ImagePrompt::Project(const at::Tensor& encoded) const {
  const at::Tensor tokens =
      config_.kind == ImagePromptConfig::Kind::kPlus
          ? resampler_.forward(encoded)
          : norm_.forward(proj_.forward(encoded).view({-1, config_.tokens, config_.context_width}));
  return tokens.reshape({1, -1, config_.context_width});
}

at::Tensor ImagePrompt::TokensOf(const EncodedPictures& pictures) const {
  return Project(config_.kind == ImagePromptConfig::Kind::kPlus ? pictures.hidden : pictures.embeddings);
}

at::Tensor ImagePrompt::TokensOfNone(const EncodedPictures& zeros, int64_t pictures) const {
  const at::Tensor tokens = Project(config_.kind == ImagePromptConfig::Kind::kPlus
                                        ? zeros.hidden
                                        : at::zeros({1, config_.encoder_width}, keys_values_.front().weight.options()));
  return at::cat(std::vector<at::Tensor>(static_cast<size_t>(pictures), tokens), 1);
}

std::vector<at::Tensor> ImagePrompt::ProjectTokens(const at::Tensor& tokens) const {
  std::vector<at::Tensor> projected;
  for (const Linear& keys_values : keys_values_) {
    projected.push_back(keys_values.forward(tokens));
  }
  return projected;
}

void AddImagePrompt(int64_t first, c10::ArrayRef<at::Tensor> keys_values, c10::ArrayRef<double> scales,
                    std::vector<ImageBranch>& image) {
  TORCH_CHECK(scales.size() == keys_values.size(), scales.size(), " scales for ", keys_values.size(),
              " cross attentions");
  image.resize(keys_values.size());
  for (size_t i = 0; i < scales.size(); ++i) {
    if (scales[i] != 0.0) {
      image[i].push_back({first, keys_values[i], scales[i]});
    }
  }
}

}  // namespace hotlora
