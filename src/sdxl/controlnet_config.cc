#include "src/sdxl/controlnet_config.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "src/sdxl/config_reader.h"
#include "src/weights/model_unsupported.h"

namespace hotlora {
namespace {

constexpr int64_t kMostHintChannels = 1024;
constexpr int64_t kChunkTokens = 77;  // of a text, with its begin and end

absl::Status Refuse(absl::string_view what, const std::vector<std::string>& faults) {
  return ModelUnsupported(absl::StrCat(what, absl::StrJoin(faults, "; ")));
}

ControlTypesConfig ParseTypes(ConfigReader& reader, int64_t channels) {
  ControlTypesConfig types;
  types.count = reader.Integer("num_control_type", kMaxWidth);
  types.layers = reader.Integer("num_trans_layer", kMaxDepth);
  // Tokens are means of the hint and of the entry convolution, and shifts of the latter.
  for (const char* const key : {"num_trans_channel", "num_proj_channel"}) {
    const int64_t width = reader.Integer(key, kMaxWidth);
    reader.Check(width == channels,
                 absl::StrCat(key, " is ", width, ", but the first of block_out_channels is ", channels));
  }
  return types;
}

// How many there are of first + "0" + last, first + "1" + last, ...
int64_t CountOf(ShapeOf shape_of, const std::string& first, const std::string& last) {
  int64_t count = 0;
  while (count < kMaxDepth && shape_of(absl::StrCat(first, count, last)) != nullptr) {
    ++count;
  }
  return count;
}

}  // namespace

absl::StatusOr<ControlNetConfig> ParseControlNetConfig(const std::string& file, const nlohmann::json& json) {
  std::vector<std::string> faults;
  ConfigReader reader(file, json, faults);
  ControlNetConfig config;
  config.encoder = ParseUnetEncoder(reader);
  reader.Only("conditioning_channels", 3);
  reader.Only("controlnet_conditioning_channel_order", "rgb");
  reader.Absent("global_pool_conditions");
  const nlohmann::json* const mid = reader.Find("mid_block_type");
  if (mid != nullptr && *mid != "UNetMidBlock2DCrossAttn" && *mid != "UNetMidBlock2D") {
    reader.Fault("mid_block_type", *mid, "UNetMidBlock2DCrossAttn or UNetMidBlock2D");
  }
  config.encoder.mid_attention = mid == nullptr || *mid == "UNetMidBlock2DCrossAttn";
  config.hint_channels = reader.Levels("conditioning_embedding_out_channels");
  for (const int64_t channels : config.hint_channels) {
    reader.Check(channels <= kMostHintChannels,
                 absl::StrCat("conditioning_embedding_out_channels has ", channels, ", at most ", kMostHintChannels));
  }
  if (reader.Find("num_control_type") != nullptr) {
    config.types = ParseTypes(reader, config.encoder.levels.front().channels);
  }
  if (!faults.empty()) {
    return Refuse("the ControlNet's config cannot be used: ", faults);
  }
  return config;
}

ControlElements ControlElementsOf(const UnetConfig& unet, int64_t height, int64_t width, int64_t factor) {
  ControlElements elements;
  const int64_t pixels = height * width * factor * factor;
  elements.hint = unet.levels.front().channels * height * width;
  // A convolution's input, output and unfolded windows of 3x3 at the picture's size, and the picture as bytes, as
  // float32 and in the dtype of the net: no more than 11 values of two bytes a pixel.
  elements.embedding = ((2 + 9) * kUsualHintChannels[0] + 11) * pixels;
  int64_t keys = 0;                  // as many as values
  elements.outputs = elements.hint;  // of the entry convolution
  for (size_t level = 0; level < unet.levels.size(); ++level) {
    const int64_t channels = unet.levels[level].channels;
    keys += (unet.layers_per_block + (level + 1 < unet.levels.size() ? 0 : 1)) * unet.levels[level].transformer_depth *
            channels;
    elements.outputs += unet.layers_per_block * channels * height * width;
    if (level + 1 < unet.levels.size()) {
      height = (height + 1) / 2;
      width = (width + 1) / 2;
    }
    elements.outputs += channels * height * width;  // of what halves the size, at the last level of the middle block
  }
  elements.text = kChunkTokens * 2 * (keys + unet.cross_attention_width);
  return elements;
}

ControlNetConfig ControlNetConfigOf(ShapeOf shape_of, const UnetConfig& unet) {
  ControlNetConfig config;
  config.encoder = unet;
  const auto depth_of = [&](const std::string& block) {
    return CountOf(shape_of, absl::StrCat(block, ".attentions.0.transformer_blocks."), ".norm1.weight");
  };
  const int64_t mid_depth = depth_of("mid_block");
  config.encoder.mid_attention = mid_depth > 0;
  for (size_t i = 0; i < config.encoder.levels.size(); ++i) {
    UnetLevel& level = config.encoder.levels[i];
    const int64_t depth = depth_of(absl::StrCat("down_blocks.", i));
    level.down_attention = depth > 0;
    level.transformer_depth = depth > 0 || i + 1 < config.encoder.levels.size() ? depth : mid_depth;
  }
  const auto add_hint_level = [&](const std::string& convolution) {
    const std::vector<int64_t>* const shape = shape_of(convolution);
    if (shape != nullptr && shape->size() == 4 && (*shape)[0] <= kMostHintChannels) {
      config.hint_channels.push_back((*shape)[0]);
    }
  };
  add_hint_level("controlnet_cond_embedding.conv_in.weight");
  for (size_t i = 1; i < kMaxLevels; ++i) {
    add_hint_level(absl::StrCat("controlnet_cond_embedding.blocks.", 2 * i - 1, ".weight"));
  }
  if (const std::vector<int64_t>* const shape = shape_of("task_embedding"); shape != nullptr && !shape->empty()) {
    config.types = ControlTypesConfig{(*shape)[0], CountOf(shape_of, "transformer_layes.", ".ln_1.weight")};
  }
  return config;
}

absl::Status CheckFits(const ControlNetConfig& config, const SdxlConfig& model) {
  std::vector<std::string> faults;
  const auto check = [&faults](const std::string& what, int64_t of_net, int64_t of_model) {
    if (of_net != of_model) {
      faults.push_back(absl::StrCat(what, " is ", of_net, ", the model's is ", of_model));
    }
  };
  const UnetConfig &net = config.encoder, &unet = model.unet;
  check("in_channels", net.in_channels, unet.in_channels);
  check("layers_per_block", net.layers_per_block, unet.layers_per_block);
  check("cross_attention_dim", net.cross_attention_width, unet.cross_attention_width);
  check("addition_time_embed_dim", net.size_id_width, unet.size_id_width);
  check("projection_class_embeddings_input_dim", net.addition_in, unet.addition_in);
  check("the length of block_out_channels", static_cast<int64_t>(net.levels.size()),
        static_cast<int64_t>(unet.levels.size()));
  for (size_t i = 0; i < net.levels.size() && i < unet.levels.size(); ++i) {
    check(absl::StrCat("block_out_channels[", i, "]"), net.levels[i].channels, unet.levels[i].channels);
    if (net.levels[i].transformer_depth > unet.levels[i].transformer_depth) {
      faults.push_back(absl::StrCat("transformer_layers_per_block[", i, "] is ", net.levels[i].transformer_depth,
                                    ", at most the model's ", unet.levels[i].transformer_depth, " are allowed"));
    }
  }
  // Each level but the first halves the picture, down to the latents' size.
  check("2 to the power of the hint network's halvings",
        config.hint_channels.empty() ? 0 : int64_t{1} << (config.hint_channels.size() - 1), model.vae.factor());
  return faults.empty() ? absl::OkStatus() : Refuse("the ControlNet does not fit the model: ", faults);
}

}  // namespace hotlora
