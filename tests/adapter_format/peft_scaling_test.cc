#include "src/adapter_format/peft_scaling.h"

#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"

namespace hotlora {
namespace {

using testing::HasSubstr;

const AdaptableModule kModule{Component::kUnet, "down_blocks.1.attentions.0.proj_in", {32, 32}};

void ExpectRefused(const std::string& config, const std::string& reason, const std::string& text) {
  SCOPED_TRACE(config.substr(0, 200));
  for (const absl::Status& status :
       {PeftScaling::FromConfig(config).status(),
        // The same below a component's prefix.
        PeftScaling::FromMetadata(absl::StrCat("{\"unet.", absl::string_view(config).substr(2))).status()}) {
    EXPECT_EQ(GetErrorDetails(status).reason, reason) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }
}

double ScaleOf(const std::string& config) {
  const absl::StatusOr<PeftScaling> scaling = PeftScaling::FromConfig(config);
  EXPECT_TRUE(scaling.ok()) << scaling.status();
  return scaling.ok() ? scaling->ScaleOf(kModule, 2).value().value() : -1;
}

// What PEFT 0.20 writes for a plain LoRA (LoraConfig().save_pretrained), with the options that others add.
TEST(PeftScalingTest, ReadsWhatPeftWrites) {
  EXPECT_EQ(ScaleOf(R"({
    "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
    "auto_mapping": {"base_model_class": "UNet2DConditionModel", "parent_library": "diffusers.models.unets"},
    "base_model_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0", "bias": "none", "corda_config": null,
    "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false,
    "inference_mode": true, "init_lora_weights": true, "kasa_config": null, "layer_replication": null,
    "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 4, "lora_bias": false,
    "lora_dropout": 0.1, "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core",
    "modules_to_save": null, "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.20.0",
    "qalora_group_size": 16, "r": 2, "rank_pattern": {}, "revision": null, "target_modules": ["to_q", "to_k"],
    "target_parameters": null, "task_type": null, "trainable_token_indices": null, "use_bdlora": null,
    "use_dora": false, "use_qalora": false, "use_rslora": false, "velora_config": null})"),
            2.0);
}

// lora_adapter_metadata of diffusers' save_lora_weights, and of its save_lora_adapter.
TEST(PeftScalingTest, MetadataAreOfComponentsOrOfAll) {
  AdaptableModule text = kModule;
  text.component = Component::kTextEncoder2;
  const std::tuple<const char*, std::optional<double>, std::optional<double>, bool> cases[] = {
      {R"({"unet.r": 2, "unet.lora_alpha": 4})", 2.0, std::nullopt, false},
      {R"({"unet.r": 2, "unet.lora_alpha": 4, "text_encoder_2.r": 2, "text_encoder_2.lora_alpha": 1})", 2.0, 0.5,
       false},
      {R"({"r": 2, "lora_alpha": 4})", 2.0, 2.0, true},
      {R"({"r": 2, "lora_alpha": 4, "unet.r": 2, "unet.lora_alpha": 6})", 3.0, 2.0, false},
      {R"({"transformer.r": 2, "transformer.lora_alpha": 4})", std::nullopt, std::nullopt, false},
  };
  for (const auto& [metadata, of_unet, of_text, shared] : cases) {
    SCOPED_TRACE(metadata);
    const absl::StatusOr<PeftScaling> scaling = PeftScaling::FromMetadata(metadata);
    ASSERT_TRUE(scaling.ok()) << scaling.status();
    EXPECT_EQ(scaling->ScaleOf(kModule, 2).value(), of_unet);
    EXPECT_EQ(scaling->ScaleOf(text, 2).value(), of_text);
    EXPECT_EQ(scaling->is_shared(), shared);
  }
  EXPECT_FALSE(PeftScaling::FromMetadata(R"({"r": 2, "init_lora_weights": "pissa"})").ok());
}

TEST(PeftScalingTest, AcceptsStartsThatLeaveTheBaseAlone) {
  for (const char* const start :
       {"true", "false", "null", R"("gaussian")", R"("Gaussian")", R"("GAUSSIAN")", R"("orthogonal")",
        R"("Orthogonal")", R"("eva")", R"("EVA")", R"("mica")", R"("MiCA")", R"("true")", R"("False")"}) {
    EXPECT_EQ(ScaleOf(absl::StrCat(R"({"r": 2, "lora_alpha": 4, "init_lora_weights": )", start, "}")), 2.0) << start;
  }
}

TEST(PeftScalingTest, RefusesEveryOtherStartByName) {
  for (const char* const start : {"pissa", "PiSSA", "pissa_niter_16", "olora", "OLoRA", "corda", "CorDA", "loftq",
                                  "LoftQ", "lora_ga", "LoRA_GA", "lora-ga", "of next year", ""}) {
    ExpectRefused(absl::StrCat(R"({"init_lora_weights": ")", start, R"(", "r": 2})"), "ADAPTER_UNSUPPORTED",
                  absl::StrCat("init_lora_weights \"", start, "\""));
  }
  for (const char* const start : {"1", "0", "[]", R"(["eva"])"}) {
    ExpectRefused(absl::StrCat(R"({"init_lora_weights": )", start, R"(, "r": 2})"), "ADAPTER_UNSUPPORTED",
                  "init_lora_weights");
  }
}

TEST(PeftScalingTest, UnknownKeysAreHarmlessOnlyWhereTheyAreUnused) {
  for (const char* const key :
       {"of_next_year", "use_qalora", "alora_invocation_tokens", "megatron_config", "trainable_token_indices",
        "layer_replication", "target_parameters", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config"}) {
    for (const char* const unused : {"null", "false", "\"\"", "[]", "{}"}) {
      EXPECT_EQ(ScaleOf(absl::StrCat("{\"", key, "\": ", unused, R"(, "r": 2, "lora_alpha": 4})")), 2.0) << key;
    }
    for (const char* const used : {"true", "0", "1.5", "\"x\"", "[1]", R"({"a": null})"}) {
      ExpectRefused(absl::StrCat("{\"", key, "\": ", used, R"(, "r": 2})"), "ADAPTER_UNSUPPORTED",
                    absl::StrCat("\"", key, "\""));
    }
  }
}

TEST(PeftScalingTest, KnowsTheTypeInAnyCaseOfLetters) {
  for (const char* const type : {R"("LORA")", R"("lora")", R"("Lora")", "null"}) {
    EXPECT_EQ(ScaleOf(absl::StrCat(R"({"peft_type": )", type, R"(, "r": 2, "lora_alpha": 4})")), 2.0) << type;
  }
  for (const char* const type : {R"("LOHA")", R"("IA3")", R"("")", "7", "true", "[]"}) {
    ExpectRefused(absl::StrCat(R"({"peft_type": )", type, R"(, "r": 2})"), "ADAPTER_UNSUPPORTED", "peft_type");
  }
}

TEST(PeftScalingTest, PatternsAreNamesOrExpressionsAtADot) {
  const std::tuple<const char*, double> cases[] = {
      {R"("proj_in": 6)", 3.0},
      {R"("attentions.0.proj_in": 6)", 3.0},
      {R"("attentions.1.proj_in": 6)", 2.0},
      {R"("roj_in": 6)", 2.0},
      {R"("^proj_in": 6)", 2.0},
      {R"("^down_blocks.1.attentions.0.proj_in": 6)", 3.0},
      {R"("^up_blocks.1.attentions.0.proj_in": 6)", 2.0},
      {R"("attentions.*proj_.n": 6)", 3.0},
      {R"p("proj_(in|out)": 6)p", 3.0},
      {R"("attentions.\\d+.proj_in": 6)", 3.0},
      {R"("proj.in": 6)", 3.0},
      {R"("": 6)", 2.0},
      {R"("proj_in": 8, "attentions.0.proj_in": 6)", 4.0},
      {R"p("zero": 2, "proj_(in|out)": 8, "attentions.0.proj_in": 6)p", 4.0},
  };
  for (const auto& [patterns, scale] : cases) {
    EXPECT_EQ(ScaleOf(absl::StrCat(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {)", patterns, "}}")), scale)
        << patterns;
  }
}

TEST(PeftScalingTest, RefusesDeepNesting) {
  std::string deep = R"({"rank_pattern": )";
  deep.append(1'500'000, '[');
  deep.append(1'500'000, ']');
  ExpectRefused(deep + "}", "ADAPTER_INVALID", "nests arrays and objects more than 64 deep");
  std::string objects = "{\"r\": ";
  for (int i = 0; i < 500'000; ++i) {
    objects += "{\"a\":";
  }
  ExpectRefused(objects, "ADAPTER_INVALID", "nests arrays and objects more than 64 deep");
}

std::string ConfigOf(int count, const std::string& before, const std::string& after) {
  std::string config = R"({"alpha_pattern": {)";
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&config, i == 0 ? "" : ",", "\"", before, i, after, "\": 4");
  }
  return config + R"(}, "r": 2})";
}

TEST(PeftScalingTest, PatternsHaveABudgetForAllTables) {
  EXPECT_EQ(ScaleOf(ConfigOf(PatternBudget::kMaxPatterns, "a.b", "c")), 4.0);
  ExpectRefused(ConfigOf(PatternBudget::kMaxPatterns + 1, "a.b", "c"), "ADAPTER_INVALID", "more than 4096 patterns");
  EXPECT_EQ(ScaleOf(ConfigOf(PatternBudget::kMaxExpressions, "a", "?")), 4.0);
  ExpectRefused(ConfigOf(PatternBudget::kMaxExpressions + 1, "a", "?"), "ADAPTER_INVALID",
                "more than 64 patterns that are not names");
  ExpectRefused(ConfigOf(1, std::string(600, 'a'), ""), "ADAPTER_INVALID", "a pattern of 601 bytes");
  ExpectRefused(ConfigOf(60, ".{200}", ""), "ADAPTER_INVALID", "instructions together");
  // Two tables share it.
  const std::string table = ConfigOf(40, "a", "?");
  const std::string rank_table = "\"rank_pattern\"" + table.substr(table.find(':'));
  const absl::Status status =
      PeftScaling::FromConfig(absl::StrCat(table.substr(0, table.rfind(", \"r\"")), ", ", rank_table)).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("alpha_pattern: more than 64 patterns")) << status;
}

// The worst that the budget lets through, against as many modules as SDXL has.
TEST(PeftScalingTest, HostilePatternsTakeLittleTime) {
  const std::string attack = "(.*.*.*.*.*.*.*.*=.*|[^x]*[^y]*){0,2}(.*.*.*.*=.*|[^x]*[^y]*){0,2}z";
  const absl::Time start = absl::Now();
  int count = 1;
  absl::StatusOr<PeftScaling> taken = PeftScaling::FromConfig(ConfigOf(count, attack, ""));
  ASSERT_TRUE(taken.ok()) << taken.status();
  for (absl::StatusOr<PeftScaling> more = taken; more.ok(); ++count) {
    taken = std::move(more);
    more = PeftScaling::FromConfig(ConfigOf(count + 1, attack, ""));
  }
  AdaptableModule module{Component::kUnet, "", {32, 32}};
  for (int i = 0; i < 800; ++i) {
    module.path = absl::StrCat("up_blocks.", i, ".attentions.0.transformer_blocks.9.attn1.to_out.0");
    EXPECT_EQ(taken->ScaleOf(module, 2).value(), 4.0);
  }
  EXPECT_LT(absl::Now() - start, absl::Seconds(20)) << count << " patterns";
}

}  // namespace
}  // namespace hotlora
