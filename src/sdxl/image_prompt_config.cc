#include "src/sdxl/image_prompt_config.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "src/sdxl/config_reader.h"
#include "src/sdxl/module_list.h"
#include "src/weights/model_unsupported.h"

namespace hotlora {
namespace {

constexpr int64_t kHeadWidth = 64;  // of a resampler, fixed by the architecture
constexpr int64_t kMostTokens = 1024;

// One dimension of a tensor; 0 if it has none such.
int64_t SizeOf(const SafetensorsFile& header, const std::string& name, size_t dimension) {
  const StoredTensor* const tensor = header.Find(name);
  return tensor == nullptr || tensor->shape.size() <= dimension ? 0 : tensor->shape[dimension];
}

ImagePromptConfig PlusConfig(const SafetensorsFile& header) {
  ImagePromptConfig config;
  config.kind = ImagePromptConfig::Kind::kPlus;
  config.tokens = SizeOf(header, "image_proj.latents", 1);
  config.width = SizeOf(header, "image_proj.latents", 2);
  config.encoder_width = SizeOf(header, "image_proj.proj_in.weight", 1);
  config.context_width = SizeOf(header, "image_proj.proj_out.weight", 0);
  config.query_width = SizeOf(header, "image_proj.layers.0.0.to_q.weight", 0);
  config.inner_width = SizeOf(header, "image_proj.layers.0.1.1.weight", 0);
  while (config.layers < kMaxDepth &&
         header.Find(absl::StrCat("image_proj.layers.", config.layers, ".0.to_q.weight")) != nullptr) {
    ++config.layers;
  }
  return config;
}

ImagePromptConfig StandardConfig(const SafetensorsFile& header) {
  ImagePromptConfig config;
  config.context_width = SizeOf(header, "image_proj.norm.weight", 0);
  config.encoder_width = SizeOf(header, "image_proj.proj.weight", 1);
  const int64_t rows = SizeOf(header, "image_proj.proj.weight", 0);
  config.tokens = config.context_width > 0 && rows % config.context_width == 0 ? rows / config.context_width : 0;
  return config;
}

}  // namespace

std::vector<CrossAttentionPlace> CrossAttentions(const SdxlConfig& model) {
  std::vector<CrossAttentionPlace> places;
  for (const AdaptableModule& module : ModuleListOf(model).modules) {
    absl::string_view path = module.path;
    if (module.component == Component::kUnet && absl::ConsumeSuffix(&path, ".attn2.to_q")) {
      places.push_back({absl::StrCat(path, ".attn2"), module.shape[0]});
    }
  }
  int64_t number = 1;
  const auto count = [&](bool middle) {
    for (CrossAttentionPlace& place : places) {
      if (absl::StartsWith(place.path, "mid_block.") == middle) {
        place.number = number;
        number += 2;
      }
    }
  };
  count(/*middle=*/false);
  count(/*middle=*/true);
  return places;
}

absl::StatusOr<ImagePromptConfig> ImagePromptConfigOf(const SafetensorsFile& header, const SdxlConfig& model) {
  ImagePromptConfig config;
  if (header.Find("image_proj.latents") != nullptr) {
    config = PlusConfig(header);
    if (config.width == 0 || config.inner_width == 0 || config.layers == 0 || config.query_width == 0 ||
        config.query_width % kHeadWidth != 0) {
      return ModelUnsupported(
          "the image prompt's resampler (image_proj.) makes no sense: its shapes have no heads of 64");
    }
  } else if (header.Find("image_proj.proj.weight") != nullptr) {
    config = StandardConfig(header);
  } else if (header.Find("image_proj.proj.0.weight") != nullptr || header.Find("image_proj.proj.3.weight") != nullptr) {
    return ModelUnsupported(
        "the file is an IP-Adapter of a kind that is not supported (full face, or FaceID); standard and plus are");
  } else {
    return ModelUnsupported(
        "the file is not an IP-Adapter: it has neither image_proj.proj.weight nor image_proj.latents");
  }
  if (config.context_width != model.unet.cross_attention_width) {
    return ModelUnsupported(absl::StrCat("the image prompt does not fit the model: its tokens are ",
                                         config.context_width, " wide, the model's cross_attention_dim is ",
                                         model.unet.cross_attention_width));
  }
  if (config.tokens < 1 || config.tokens > kMostTokens || config.encoder_width < 1) {
    return ModelUnsupported(absl::StrCat("the image prompt makes ", config.tokens, " tokens of a picture, from ",
                                         config.encoder_width, " numbers; allowed are 1 to ", kMostTokens, " tokens"));
  }
  config.places = CrossAttentions(model);
  return config;
}

}  // namespace hotlora
