#include "src/sdxl/sdxl_config.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <nlohmann/json.hpp>

#include "src/sdxl/config_reader.h"
#include "src/weights/model_unsupported.h"

namespace hotlora {
namespace {

using Json = nlohmann::json;

TextEncoderConfig ParseTextEncoder(ConfigReader reader, bool projected) {
  TextEncoderConfig config;
  static_cast<ClipConfig&>(config) = ParseClip(reader);
  config.vocab_size = reader.Integer("vocab_size", kMaxVocabulary);
  config.positions = reader.Integer("max_position_embeddings", kMaxWidth);
  config.projection = projected ? reader.Integer("projection_dim", kMaxWidth) : 0;
  config.eos_token_id = reader.Integer("eos_token_id", kMaxVocabulary);
  return config;
}

// Everything that diffusers' UNet2DConditionModel can do and this one cannot.
void RefuseUnsupported(ConfigReader& reader) {
  reader.RequireOnly("addition_embed_type", "text_time");
  reader.RequireOnly("use_linear_projection", true);
  reader.Only("act_fn", "silu");
  reader.Only("attention_type", "default");
  reader.Only("time_embedding_type", "positional");
  reader.Only("resnet_time_scale_shift", "default");
  reader.Only("resnet_out_scale_factor", 1.0);
  reader.Only("mid_block_scale_factor", 1);
  reader.Only("downsample_padding", 1);
  reader.Only("conv_in_kernel", 3);
  reader.Only("conv_out_kernel", 3);
  for (const char* key :
       {"center_input_sample", "class_embed_type", "class_embeddings_concat", "cross_attention_norm",
        "dual_cross_attention", "encoder_hid_dim", "encoder_hid_dim_type", "mid_block_only_cross_attention",
        "num_attention_heads", "num_class_embeds", "only_cross_attention", "resnet_skip_time_act",
        "reverse_transformer_layers_per_block", "time_cond_proj_dim", "time_embedding_act_fn", "time_embedding_dim",
        "timestep_post_act", "upcast_attention"}) {
    reader.Absent(key);
  }
}

void ParseLevels(ConfigReader& reader, UnetConfig& config) {
  const std::vector<int64_t> channels = reader.Levels("block_out_channels");
  const size_t count = channels.size();
  const std::vector<int64_t> depth = reader.PerLevel("transformer_layers_per_block", count, kMaxDepth);
  // The key is misnamed in diffusers: for this model it holds the number of heads.
  const std::vector<int64_t> heads = reader.PerLevel("attention_head_dim", count, kMaxWidth);
  const std::vector<std::string> down =
      reader.Names("down_block_types", count, {"DownBlock2D", "CrossAttnDownBlock2D"});
  for (size_t i = 0; i < count; ++i) {
    UnetLevel level;
    level.channels = channels[i];
    level.transformer_depth = depth[i];
    level.heads = heads[i];
    level.down_attention = down[i] == "CrossAttnDownBlock2D";
    config.levels.push_back(level);
    reader.Check(level.channels % config.groups == 0,
                 absl::StrCat("norm_num_groups does not divide block_out_channels ", level.channels));
    reader.Check(level.channels % level.heads == 0,
                 absl::StrCat("attention_head_dim does not divide block_out_channels ", level.channels));
  }
  reader.Check(channels.front() % 2 == 0, "block_out_channels must begin with an even number");
}

UnetConfig ParseUnet(ConfigReader reader) {
  UnetConfig config = ParseUnetEncoder(reader);
  reader.Only("mid_block_type", "UNetMidBlock2DCrossAttn");
  config.sample_size = reader.Integer("sample_size", kMaxWidth);
  config.out_channels = reader.Integer("out_channels", kMaxWidth);
  const size_t count = config.levels.size();
  const std::vector<std::string> up = reader.Names("up_block_types", count, {"UpBlock2D", "CrossAttnUpBlock2D"});
  for (size_t i = 0; i < count; ++i) {
    config.levels[i].up_attention = up[count - 1 - i] == "CrossAttnUpBlock2D";  // listed innermost first
  }
  return config;
}

std::vector<double> ParseLatentStatistics(ConfigReader& reader, const std::string& key, int64_t channels) {
  const Json* value = reader.Find(key);
  if (value == nullptr) {
    return {};
  }
  std::vector<double> numbers;
  if (value->is_array()) {
    for (const Json& entry : *value) {
      if (entry.is_number()) {
        numbers.push_back(entry.get<double>());
      }
    }
  }
  if (static_cast<int64_t>(numbers.size()) != channels || numbers.size() != value->size()) {
    reader.Fault(key, *value, absl::StrCat("a list of ", channels, " numbers"));
    return {};
  }
  return numbers;
}

VaeConfig ParseVae(ConfigReader reader) {
  VaeConfig config;
  config.latent_channels = reader.Integer("latent_channels", kMaxWidth);
  config.out_channels = reader.Integer("out_channels", kMaxWidth);
  config.layers_per_block = reader.Integer("layers_per_block", kMaxDepth);
  config.groups = reader.Integer("norm_num_groups", kMaxWidth);
  config.scaling_factor = reader.Positive("scaling_factor");
  config.channels = reader.Levels("block_out_channels");
  config.latents_mean = ParseLatentStatistics(reader, "latents_mean", config.latent_channels);
  config.latents_std = ParseLatentStatistics(reader, "latents_std", config.latent_channels);
  config.quant_conv = reader.Flag("use_quant_conv", true);
  config.post_quant_conv = reader.Flag("use_post_quant_conv", true);
  reader.Names("down_block_types", config.channels.size(), {"DownEncoderBlock2D"});
  reader.Names("up_block_types", config.channels.size(), {"UpDecoderBlock2D"});
  reader.Only("act_fn", "silu");
  reader.Only("in_channels", 3);
  reader.Only("mid_block_add_attention", true);
  reader.Absent("shift_factor");
  reader.Check(config.out_channels == 3, absl::StrCat("out_channels is ", config.out_channels, ", must be 3"));
  reader.Check(config.latents_mean.size() == config.latents_std.size(),
               "latents_mean and latents_std must be given together");
  for (int64_t channels : config.channels) {
    reader.Check(channels % config.groups == 0,
                 absl::StrCat("norm_num_groups does not divide block_out_channels ", channels));
  }
  return config;
}

// What must agree between the configs.
void CheckTogether(const SdxlConfig& config, std::vector<std::string>& errors) {
  auto check = [&errors](int64_t a, const char* a_name, int64_t b, const char* b_name) {
    if (a != b) {
      errors.push_back(absl::StrCat(a_name, " is ", a, ", but ", b_name, " is ", b));
    }
  };
  check(config.unet.cross_attention_width, "unet: cross_attention_dim",
        config.text_encoder.width + config.text_encoder_2.width, "the text encoders' hidden_size together");
  check(config.unet.addition_in, "unet: projection_class_embeddings_input_dim",
        config.text_encoder_2.projection + 6 * config.unet.size_id_width,
        "projection_dim + 6 * addition_time_embed_dim");
  check(config.unet.in_channels, "unet: in_channels", config.vae.latent_channels, "vae: latent_channels");
  check(config.unet.out_channels, "unet: out_channels", config.vae.latent_channels, "vae: latent_channels");
  check(config.text_encoder.positions, "text_encoder: max_position_embeddings", config.text_encoder_2.positions,
        "text_encoder_2: max_position_embeddings");
}

}  // namespace

ClipConfig ParseClip(ConfigReader& reader) {
  ClipConfig config;
  config.width = reader.Integer("hidden_size", kMaxWidth);
  config.inner_width = reader.Integer("intermediate_size", kMaxWidth);
  config.layers = reader.Integer("num_hidden_layers", kMaxDepth);
  config.heads = reader.Integer("num_attention_heads", kMaxWidth);
  config.layer_norm_epsilon = reader.Positive("layer_norm_eps");
  const Json* activation = reader.Find("hidden_act");
  if (activation != nullptr && *activation == "quick_gelu") {
    config.activation = ClipConfig::Activation::kQuickGelu;
  } else if (activation == nullptr || *activation != "gelu") {
    reader.Fault("hidden_act", activation == nullptr ? Json() : *activation, "\"gelu\" or \"quick_gelu\"");
  }
  reader.Check(config.width % config.heads == 0, "num_attention_heads does not divide hidden_size");
  reader.Check(config.layers >= 2, "num_hidden_layers must be at least 2");
  return config;
}

UnetConfig ParseUnetEncoder(ConfigReader& reader) {
  UnetConfig config;
  RefuseUnsupported(reader);
  config.in_channels = reader.Integer("in_channels", kMaxWidth);
  config.layers_per_block = reader.Integer("layers_per_block", kMaxDepth);
  config.cross_attention_width = reader.Integer("cross_attention_dim", kMaxWidth);
  config.groups = reader.Integer("norm_num_groups", kMaxWidth);
  config.norm_epsilon = reader.Positive("norm_eps");
  config.cosine_first = reader.Flag("flip_sin_to_cos", true);
  const Json* shift = reader.Find("freq_shift");
  if (shift != nullptr && (!shift->is_number() || std::abs(shift->get<double>()) > 1.0)) {
    reader.Fault("freq_shift", *shift, "a number from -1 to 1");
  } else if (shift != nullptr) {
    config.frequency_shift = shift->get<double>();
  }
  config.size_id_width = reader.Integer("addition_time_embed_dim", kMaxWidth);
  config.addition_in = reader.Integer("projection_class_embeddings_input_dim", kMaxWidth);
  reader.Check(config.size_id_width % 2 == 0, "addition_time_embed_dim must be even");
  ParseLevels(reader, config);
  return config;
}

absl::StatusOr<SdxlConfig> ParseSdxlConfig(const CheckpointConfigs& configs) {
  std::vector<std::string> errors;
  SdxlConfig config;
  config.text_encoder =
      ParseTextEncoder({"text_encoder/config.json", configs.text_encoder_config, errors}, /*projected=*/false);
  config.text_encoder_2 =
      ParseTextEncoder({"text_encoder_2/config.json", configs.text_encoder_2_config, errors}, /*projected=*/true);
  config.unet = ParseUnet({"unet/config.json", configs.unet_config, errors});
  config.vae = ParseVae({"vae/config.json", configs.vae_config, errors});
  config.force_zeros_for_empty_prompt =
      ConfigReader("model_index.json", configs.model_index, errors).Flag("force_zeros_for_empty_prompt", true);
  if (errors.empty()) {
    CheckTogether(config, errors);
  }
  if (!errors.empty()) {
    return ModelUnsupported(absl::StrCat("the model's configs cannot be used: ", absl::StrJoin(errors, "; ")));
  }
  return config;
}

}  // namespace hotlora
