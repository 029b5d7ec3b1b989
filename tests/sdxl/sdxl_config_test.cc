#include "src/sdxl/sdxl_config.h"

#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/json_text.h"
#include "src/weights/sdxl_base_configs.h"
#include "tests/golden_support.h"
#include "tests/sdxl/model_fixture.h"

namespace hotlora {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

class SdxlConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<Checkpoint> read = ReadCheckpoint(TinyCheckpoint());
    ASSERT_TRUE(read.ok()) << read.status();
    checkpoint_.emplace(*std::move(read));
  }

  std::string ErrorText() {
    absl::StatusOr<SdxlConfig> config = ParseSdxlConfig(*checkpoint_);
    if (config.ok()) {
      return "no error";
    }
    EXPECT_EQ(config.status().code(), absl::StatusCode::kFailedPrecondition);
    return std::string(config.status().message());
  }

  std::optional<Checkpoint> checkpoint_;
};

TEST_F(SdxlConfigTest, ReadsEveryNumber) {
  absl::StatusOr<SdxlConfig> config = ParseSdxlConfig(*checkpoint_);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->text_encoder.width, 8);
  EXPECT_EQ(config->text_encoder.layers, 3);
  EXPECT_EQ(config->text_encoder.activation, TextEncoderConfig::Activation::kQuickGelu);
  EXPECT_EQ(config->text_encoder.projection, 0);
  EXPECT_EQ(config->text_encoder_2.activation, TextEncoderConfig::Activation::kGelu);
  EXPECT_EQ(config->text_encoder_2.projection, 16);
  EXPECT_EQ(config->unet.cross_attention_width, 24);
  ASSERT_EQ(config->unet.levels.size(), 3u);
  const UnetLevel& outer = config->unet.levels[0];
  const UnetLevel& inner = config->unet.levels[2];
  EXPECT_FALSE(outer.down_attention);
  EXPECT_FALSE(outer.up_attention);
  EXPECT_TRUE(inner.down_attention);
  EXPECT_TRUE(inner.up_attention);
  EXPECT_EQ(inner.channels, 64);
  EXPECT_EQ(inner.heads, 4);
  EXPECT_EQ(inner.transformer_depth, 2);
  EXPECT_EQ(config->vae.scaling_factor, 0.13025);
  EXPECT_EQ(config->vae.factor(), 8);
  EXPECT_EQ(config->native_size(), 128);
  EXPECT_TRUE(config->force_zeros_for_empty_prompt);
}

// The published configs of SDXL base write many keys at their defaults.
TEST_F(SdxlConfigTest, AcceptsPublishedKeysAtTheirDefaults) {
  checkpoint_->unet_config.update(nlohmann::json::parse(R"({
    "addition_embed_type_num_heads": 64, "class_embed_type": null, "class_embeddings_concat": false, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "cross_attention_norm": null, "dual_cross_attention": false, "encoder_hid_dim": null,
    "encoder_hid_dim_type": null, "mid_block_only_cross_attention": null, "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": null, "num_class_embeds": null, "only_cross_attention": false, "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": false, "resnet_time_scale_shift": "default", "time_cond_proj_dim": null,
    "time_embedding_act_fn": null, "time_embedding_dim": null, "time_embedding_type": "positional",
    "timestep_post_act": null, "upcast_attention": null, "attention_type": "default", "dropout": 0.0,
    "reverse_transformer_layers_per_block": null, "_diffusers_version": "0.19.0.dev0"})"));
  checkpoint_->vae_config.update(nlohmann::json::parse(
      R"({"latents_mean": null, "latents_std": null, "shift_factor": null, "use_post_quant_conv": true})"));
  EXPECT_EQ(ErrorText(), "no error");
}

TEST_F(SdxlConfigTest, OneNumberStandsForAllLevels) {
  checkpoint_->unet_config["transformer_layers_per_block"] = 3;
  absl::StatusOr<SdxlConfig> config = ParseSdxlConfig(*checkpoint_);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->unet.levels[1].transformer_depth, 3);
}

struct Refusal {
  const char *key, *value;
};

class SdxlConfigRefusalTest : public SdxlConfigTest, public testing::WithParamInterface<Refusal> {};

TEST_P(SdxlConfigRefusalTest, NamesFileKeyAndValue) {
  const Refusal refusal = GetParam();
  checkpoint_->unet_config[refusal.key] = nlohmann::json::parse(refusal.value);
  EXPECT_THAT(ErrorText(), AllOf(HasSubstr("unet/config.json: "), HasSubstr(refusal.key),
                                 HasSubstr(nlohmann::json::parse(refusal.value).dump())));
}

INSTANTIATE_TEST_SUITE_P(
    Unet, SdxlConfigRefusalTest,
    testing::Values(Refusal{"addition_embed_type", "\"image\""}, Refusal{"act_fn", "\"gelu\""},
                    Refusal{"class_embed_type", "\"timestep\""}, Refusal{"use_linear_projection", "false"},
                    Refusal{"attention_type", "\"gated\""}, Refusal{"mid_block_type", "\"UNetMidBlock2D\""},
                    Refusal{"resnet_time_scale_shift", "\"scale_shift\""}, Refusal{"encoder_hid_dim", "768"},
                    Refusal{"num_attention_heads", "4"}, Refusal{"time_embedding_type", "\"fourier\""},
                    Refusal{"dual_cross_attention", "true"}, Refusal{"layers_per_block", "[2,2,2]"},
                    Refusal{"layers_per_block", "0"}, Refusal{"layers_per_block", "2.5"},
                    Refusal{"cross_attention_dim", "[24,24,24]"}, Refusal{"norm_eps", "-1"},
                    Refusal{"block_out_channels", "[]"}, Refusal{"block_out_channels", "\"wide\""},
                    Refusal{"attention_head_dim", "[2,2]"}, Refusal{"in_channels", "1e300"}));

TEST_F(SdxlConfigTest, RefusesUnknownBlockTypes) {
  checkpoint_->unet_config["down_block_types"][1] = "AttnDownBlock2D";
  checkpoint_->vae_config["up_block_types"][0] = "AttnUpDecoderBlock2D";
  EXPECT_THAT(ErrorText(), AllOf(HasSubstr("unet/config.json: down_block_types is \"AttnDownBlock2D\""),
                                 HasSubstr("vae/config.json: up_block_types is \"AttnUpDecoderBlock2D\"")));
}

TEST_F(SdxlConfigTest, ListsEveryFaultAtOnce) {
  checkpoint_->unet_config.erase("norm_num_groups");
  checkpoint_->text_encoder_config["hidden_act"] = "relu";
  checkpoint_->vae_config["scaling_factor"] = "large";
  checkpoint_->model_index["force_zeros_for_empty_prompt"] = "yes";
  EXPECT_THAT(ErrorText(), AllOf(HasSubstr("unet/config.json: norm_num_groups is missing"),
                                 HasSubstr("text_encoder/config.json: hidden_act is \"relu\""),
                                 HasSubstr("vae/config.json: scaling_factor is \"large\""),
                                 HasSubstr("model_index.json: force_zeros_for_empty_prompt is \"yes\"")));
}

TEST_F(SdxlConfigTest, RefusesConfigsThatDoNotFitTogether) {
  checkpoint_->unet_config["cross_attention_dim"] = 32;
  checkpoint_->unet_config["in_channels"] = 9;
  EXPECT_THAT(ErrorText(), AllOf(HasSubstr("cross_attention_dim is 32"), HasSubstr("in_channels is 9")));
}

TEST_F(SdxlConfigTest, RefusesWidthsThatDoNotDivide) {
  checkpoint_->unet_config["attention_head_dim"] = {2, 2, 5};
  checkpoint_->text_encoder_config["num_attention_heads"] = 3;
  EXPECT_THAT(ErrorText(), AllOf(HasSubstr("attention_head_dim does not divide block_out_channels 64"),
                                 HasSubstr("num_attention_heads does not divide hidden_size")));
}

// What Python's json module writes, and what it has where a number, a text or a list was.
nlohmann::json Parsed(const char* value) { return ParseJsonObject(absl::StrCat("{\"x\": ", value, "}")).value()["x"]; }

constexpr const char* kOddValues[] = {"NaN",
                                      "Infinity",
                                      "-Infinity",
                                      "1e999",
                                      "\"text\"",
                                      "\"\"",
                                      "null",
                                      "{}",
                                      "[]",
                                      "[NaN]",
                                      "[{}]",
                                      "-1",
                                      "123456789012345678901234567890"};

struct UsedKeys {
  nlohmann::json CheckpointConfigs::*config;
  const char* file;
  std::vector<const char*> needed;    // null is an error too
  std::vector<const char*> optional;  // null means the default
};

std::vector<UsedKeys> AllUsedKeys() {
  const std::vector<const char*> text = {"vocab_size",          "hidden_size",  "intermediate_size",
                                         "num_hidden_layers",   "hidden_act",   "max_position_embeddings",
                                         "num_attention_heads", "eos_token_id", "layer_norm_eps"};
  std::vector<const char*> text_2 = text;
  text_2.push_back("projection_dim");
  return {
      {&CheckpointConfigs::model_index, "model_index.json", {}, {"force_zeros_for_empty_prompt"}},
      {&CheckpointConfigs::text_encoder_config, "text_encoder/config.json", text, {}},
      {&CheckpointConfigs::text_encoder_2_config, "text_encoder_2/config.json", text_2, {}},
      {&CheckpointConfigs::vae_config,
       "vae/config.json",
       {"latent_channels", "out_channels", "layers_per_block", "norm_num_groups", "scaling_factor",
        "block_out_channels", "down_block_types", "up_block_types"},
       {"latents_mean", "latents_std", "use_quant_conv", "use_post_quant_conv", "act_fn", "in_channels",
        "mid_block_add_attention", "shift_factor"}},
      {&CheckpointConfigs::unet_config,
       "unet/config.json",
       {"addition_embed_type", "use_linear_projection", "sample_size", "in_channels", "out_channels",
        "layers_per_block", "cross_attention_dim", "norm_num_groups", "norm_eps", "addition_time_embed_dim",
        "projection_class_embeddings_input_dim", "block_out_channels", "transformer_layers_per_block",
        "attention_head_dim", "down_block_types", "up_block_types"},
       {"act_fn",
        "mid_block_type",
        "attention_type",
        "time_embedding_type",
        "resnet_time_scale_shift",
        "resnet_out_scale_factor",
        "mid_block_scale_factor",
        "downsample_padding",
        "conv_in_kernel",
        "conv_out_kernel",
        "center_input_sample",
        "class_embed_type",
        "class_embeddings_concat",
        "cross_attention_norm",
        "dual_cross_attention",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "mid_block_only_cross_attention",
        "num_attention_heads",
        "num_class_embeds",
        "only_cross_attention",
        "resnet_skip_time_act",
        "reverse_transformer_layers_per_block",
        "time_cond_proj_dim",
        "time_embedding_act_fn",
        "time_embedding_dim",
        "timestep_post_act",
        "upcast_attention",
        "flip_sin_to_cos",
        "freq_shift"}},
  };
}

TEST_F(SdxlConfigTest, EveryUsedKeyNamesFileKeyAndOddValue) {
  const CheckpointConfigs sound = *checkpoint_;
  for (const UsedKeys& used : AllUsedKeys()) {
    for (const bool needed : {true, false}) {
      for (const char* const key : needed ? used.needed : used.optional) {
        for (const char* const odd : kOddValues) {
          const nlohmann::json value = Parsed(odd);
          const bool any_positive = absl::StrContains(key, "_eps") || absl::StrContains(key, "scaling_factor");
          if ((value.is_null() && !needed) || (std::string(key) == "freq_shift" && value == -1) ||
              (any_positive && value.is_number_float())) {
            continue;
          }
          static_cast<CheckpointConfigs&>(*checkpoint_) = sound;
          ((*checkpoint_).*used.config)[key] = value;
          const bool inside = value.is_array() && value.size() == 1 && std::string(key) == "block_out_channels";
          EXPECT_THAT(ErrorText(),
                      HasSubstr(absl::StrCat(used.file, ": ", key, " is ", inside ? value[0].dump() : value.dump())))
              << odd;
        }
      }
    }
  }
}

TEST_F(SdxlConfigTest, OddValuesInsideListsAreNamed) {
  const CheckpointConfigs sound = *checkpoint_;
  const std::tuple<nlohmann::json CheckpointConfigs::*, const char*, const char*> lists[] = {
      {&CheckpointConfigs::unet_config, "unet/config.json", "block_out_channels"},
      {&CheckpointConfigs::unet_config, "unet/config.json", "transformer_layers_per_block"},
      {&CheckpointConfigs::unet_config, "unet/config.json", "attention_head_dim"},
      {&CheckpointConfigs::unet_config, "unet/config.json", "down_block_types"},
      {&CheckpointConfigs::unet_config, "unet/config.json", "up_block_types"},
      {&CheckpointConfigs::vae_config, "vae/config.json", "block_out_channels"},
      {&CheckpointConfigs::vae_config, "vae/config.json", "up_block_types"},
      {&CheckpointConfigs::vae_config, "vae/config.json", "down_block_types"},
  };
  for (const auto& [config, file, key] : lists) {
    for (const char* const odd : kOddValues) {
      static_cast<CheckpointConfigs&>(*checkpoint_) = sound;
      nlohmann::json& list = ((*checkpoint_).*config)[key];
      list = list.is_array() ? list : nlohmann::json::array({list, list, list});
      list[1] = Parsed(odd);
      EXPECT_THAT(ErrorText(), HasSubstr(absl::StrCat(file, ": ", key, " is ", list[1].dump()))) << odd;
    }
  }
}

TEST_F(SdxlConfigTest, KeysWithoutMeaningStopNothing) {
  for (const UsedKeys& used : AllUsedKeys()) {
    for (const char* const odd : kOddValues) {
      ((*checkpoint_).*used.config)["a_key_of_next_year"] = Parsed(odd);
      EXPECT_EQ(ErrorText(), "no error") << used.file << " " << odd;
    }
  }
}

TEST_F(SdxlConfigTest, StockConfigsAreThoseOfSdxlBase) {
  static_cast<CheckpointConfigs&>(*checkpoint_) = SdxlBaseConfigs();
  const absl::StatusOr<SdxlConfig> config = ParseSdxlConfig(*checkpoint_);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->native_size(), 1024);
  EXPECT_EQ(config->unet.levels.size(), 3u);
  EXPECT_EQ(config->unet.levels[2].transformer_depth, 10);
  EXPECT_EQ(config->unet.levels[2].channels / config->unet.levels[2].heads, 64);
  EXPECT_EQ(config->text_encoder.activation, TextEncoderConfig::Activation::kQuickGelu);
  EXPECT_EQ(config->text_encoder_2.activation, TextEncoderConfig::Activation::kGelu);
}

TEST_F(SdxlConfigTest, RefusesConfigsThatAreNoObjects) {
  checkpoint_->unet_config = nlohmann::json::array();
  checkpoint_->vae_config = nullptr;
  EXPECT_THAT(ErrorText(), AllOf(HasSubstr("unet/config.json: block_out_channels is missing"),
                                 HasSubstr("vae/config.json: scaling_factor is missing")));
  const std::string missing = "unet/config.json: block_out_channels is missing";
  EXPECT_THAT(ErrorText(), Not(ContainsRegex(missing + ".*" + missing)));
}

}  // namespace
}  // namespace hotlora
