#include "src/adapter_format/adapter_file.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/base/error_details.h"
#include "tests/adapter_format/safetensors_writer.h"
#include "tests/adapter_format/sdxl_modules.h"
#include "tests/golden_path.h"

namespace hotlora {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Linear [32, 32]; convolution [32, 32, 3, 3]; 1x1 convolution [64, 32, 1, 1] of the tiny model.
constexpr char kLinear[] = "lora_unet_input_blocks_4_1_proj_in";
constexpr char kConv[] = "lora_unet_input_blocks_1_0_in_layers_2";
constexpr char kShortcut[] = "lora_unet_input_blocks_7_0_skip_connection";
constexpr char kNorm[] = "lora_unet_input_blocks_4_1_norm";                               // of 32 channels
constexpr char kNoBias[] = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q";  // linear [32, 32]

class AdapterFileTest : public testing::Test {
 protected:
  absl::StatusOr<ParsedAdapter> Parse(const SafetensorsWriter& writer, const AdapterFileOptions& options = {}) {
    return ParseAdapter(writer.Parse(), keys_, table_, options);
  }

  // kLinear with rank 2.
  static SafetensorsWriter Good() {
    SafetensorsWriter writer;
    writer.Add(absl::StrCat(kLinear, ".lora_down.weight"), {2, 32});
    writer.Add(absl::StrCat(kLinear, ".lora_up.weight"), {32, 2});
    return writer;
  }

  double ScaleOf(const SafetensorsWriter& writer, const AdapterFileOptions& options = {}) {
    const absl::StatusOr<ParsedAdapter> parsed = Parse(writer, options);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return parsed.ok() ? parsed->deltas.at(0).scale : std::nan("");
  }

  void ExpectRefused(const SafetensorsWriter& writer, const std::string& reason, const std::string& text,
                     const AdapterFileOptions& options = {}) {
    const absl::Status status = Parse(writer, options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, reason) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }

  const ModuleTable table_ = TinySdxl();
  const KeyMap keys_ = KeyMap::Build(table_).value();
};

TEST_F(AdapterFileTest, AcceptsEveryGoldenAdapter) {
  const std::pair<const char*, const char*> files[] = {
      {"diffusers_old_lora_down_up", "lora"},
      {"diffusers_old_processor", "lora"},
      {"kohya_diffusers_named", "lora"},
      {"kohya_locon_convolutions", "locon"},
      {"kohya_sgm_edge_layers", "locon"},
      {"kohya_sgm_locon_convolutions", "locon"},
      {"kohya_sgm_mixed_ranks_alpha_1", "lora"},
      {"kohya_sgm_mixed_ranks_and_alphas", "lora"},
      {"kohya_sgm_named", "lora"},
      {"kohya_text_encoders_and_unet", "lora"},
      {"kohya_without_alpha", "lora"},
      {"lycoris_locon_tucker", "locon"},
      {"peft_attention", "lora"},
      {"peft_convolutions", "locon"},
      {"peft_rank_and_alpha_patterns_metadata", "lora"},
      {"peft_rslora_metadata", "lora"},
      {"peft_text_encoders_and_unet", "lora"},
      {"peft_transformer_mixed_ranks", "lora"},
      {"kohya_dora_scale_over_input", "dora"},
      {"kohya_dora_scale_over_output", "dora"},
      {"peft_dora", "dora"},
      {"lycoris_loha", "loha"},
      {"lycoris_lokr_both_decomposed", "lokr"},
      {"lycoris_lokr_full_factors", "lokr"},
      {"lycoris_lokr_second_decomposed", "lokr"},
  };
  for (const auto& [name, expected] : files) {
    SCOPED_TRACE(name);
    absl::StatusOr<SafetensorsFile> file =
        SafetensorsFile::ReadFile(GoldenPath(absl::StrCat("adapters/files/", name, ".safetensors")), 1 << 20);
    ASSERT_TRUE(file.ok()) << file.status();
    const size_t tensors = file->tensors().size();
    const absl::StatusOr<ParsedAdapter> parsed = ParseAdapter(*std::move(file), keys_, table_, AdapterFileOptions());
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->format, expected);
    EXPECT_GE(tensors, parsed->deltas.size() * 2);
    EXPECT_LE(tensors, parsed->deltas.size() * 5);
  }
}

TEST_F(AdapterFileTest, RefusesEveryBrokenAdapter) {
  const std::string folder = GoldenPath("broken_adapters/");
  std::ifstream stream(folder + "manifest.json");
  const nlohmann::json manifest = nlohmann::json::parse(stream);
  ASSERT_GT(manifest["cases"].size(), 30u);
  for (const auto& entry : manifest["cases"]) {
    SCOPED_TRACE(entry["name"].get<std::string>());
    absl::StatusOr<SafetensorsFile> file =
        SafetensorsFile::ReadFile(folder + entry["file"].get<std::string>(), 1 << 20);
    for (const bool allow : {false, true}) {
      AdapterFileOptions options;
      options.allow_unmatched_keys = allow;
      const absl::StatusOr<ParsedAdapter> parsed =
          file.ok() ? ParseAdapter(*file, keys_, table_, options) : absl::StatusOr<ParsedAdapter>(file.status());
      if (entry["expect"] == "accept") {
        EXPECT_TRUE(parsed.ok()) << parsed.status();
        EXPECT_EQ(parsed->deltas.size(), 8u);
      } else if (entry["expect"] == "refuse_or_report" && allow) {
        ASSERT_TRUE(parsed.ok()) << parsed.status();
        EXPECT_EQ(parsed->unmatched_keys.size(), 2u);
      } else {
        EXPECT_FALSE(parsed.ok());
      }
    }
  }
}

TEST_F(AdapterFileTest, NamesAForeignModel) {
  SafetensorsWriter flux;
  flux.Add("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", {4, 4});
  ExpectRefused(flux, "ADAPTER_MISMATCH", "Flux");
  SafetensorsWriter old = Good();
  old.Add("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", {4, 4});
  ExpectRefused(old, "ADAPTER_MISMATCH", "Stable Diffusion 1 or 2");
  SafetensorsWriter context;
  const std::string to_k = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
  context.Add(to_k + ".lora_A.weight", {2, 768}).Add(to_k + ".lora_B.weight", {64, 2});
  ExpectRefused(context, "ADAPTER_MISMATCH", "Stable Diffusion 1");
  ExpectRefused(context, "ADAPTER_MISMATCH", "has shape [2, 768]");
}

TEST_F(AdapterFileTest, ListsUnmatchedKeysOnlyWhereAllowed) {
  SafetensorsWriter writer = Good();
  writer.Add("lora_unet_nothing.alpha", {}).Add("stray.weight", {1});
  ExpectRefused(writer, "ADAPTER_MISMATCH", "\"stray.weight\"");
  AdapterFileOptions options;
  options.allow_unmatched_keys = true;
  const absl::StatusOr<ParsedAdapter> parsed = Parse(writer, options);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->unmatched_keys, ElementsAre("lora_unet_nothing.alpha", "stray.weight"));
  SafetensorsWriter alien;
  alien.Add("stray.weight", {1});
  ExpectRefused(alien, "ADAPTER_MISMATCH", "no key that names a module", options);
}

// Keys and shapes decide which model an adapter is for; metadata are text that nothing has checked.
TEST_F(AdapterFileTest, MetadataOfAnotherModelAreANote) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"ss_base_model_version", "sd_v1", "Stable Diffusion 1 (ss_base_model_version \"sd_v1\")"},
      {"ss_base_model_version", "flux1", "Flux (ss_base_model_version \"flux1\")"},
      {"modelspec.architecture", "stable-diffusion-v1/lora",
       "Stable Diffusion 1 (modelspec.architecture \"stable-diffusion-v1/lora\")"},
      {"ss_base_model_version", "sdxl_base_v1-0", ""},
      {"ss_base_model_version", "pony_v6", ""},
  };
  for (const auto& [key, value, note] : cases) {
    SCOPED_TRACE(value);
    const absl::StatusOr<ParsedAdapter> parsed = Parse(Good().AddMetadata(key, value));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->notes, *note == 0
                                 ? std::vector<std::string>()
                                 : std::vector<std::string>{absl::StrCat("its metadata say that it is for ", note,
                                                                         "; its keys and shapes fit this model")});
  }
  // Where the keys do not fit, the metadata explain it.
  SafetensorsWriter stray = Good();
  stray.Add("stray.weight", {1}).AddMetadata("ss_base_model_version", "sd_v1");
  ExpectRefused(stray, "ADAPTER_MISMATCH", "adapter is for Stable Diffusion 1 (ss_base_model_version \"sd_v1\")");
  AdapterFileOptions options;
  options.allow_unmatched_keys = true;
  EXPECT_TRUE(Parse(stray, options).ok()) << "keys of the UNet fit";
  SafetensorsWriter text;
  text.Add("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", {1, 8});
  text.Add("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", {32, 1});
  text.Add("lora_unet_stray.alpha", {}).AddMetadata("ss_base_model_version", "sd_v1");
  ExpectRefused(text, "ADAPTER_MISMATCH", "adapter is for Stable Diffusion 1", options);
}

TEST_F(AdapterFileTest, ServesAnAdapterWithoutItsEmbeddingOnlyWhereAllowed) {
  const std::vector<std::string> bundles[] = {
      {"bundle_emb.hero.clip_l", "bundle_emb.hero.clip_g", "bundle_emb.hero.clip_g_out"},
      {"bundle_emb.hero.string_to_param.*"},
      {"clip_l", "clip_g"},
      {"emb_params"},
  };
  AdapterFileOptions options;
  options.allow_unmatched_keys = true;
  for (const std::vector<std::string>& keys : bundles) {
    SCOPED_TRACE(keys[0]);
    SafetensorsWriter writer = Good(), alone;
    for (const std::string& key : keys) {
      writer.Add(key, {2, 8});
      alone.Add(key, {2, 8});
    }
    ExpectRefused(writer, "ADAPTER_UNSUPPORTED", "adapter comes with an embedding");
    ExpectRefused(writer, "ADAPTER_UNSUPPORTED", "--allow-unmatched-keys serves the rest");
    const absl::StatusOr<ParsedAdapter> parsed = Parse(writer, options);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_THAT(parsed->unmatched_keys, testing::UnorderedElementsAreArray(keys));
    EXPECT_EQ(parsed->matched_modules, 1u);
    ExpectRefused(alone, "ADAPTER_UNSUPPORTED", "--embeddings", options);
  }
}

TEST_F(AdapterFileTest, SaysThatKeysLeaveTheTextEncoderOpen) {
  for (const char* const module : {"text_model.encoder.layers.0.mlp.fc1", "base_model.model.encoder.layers.0.mlp.fc1",
                                   "base_model.model.text_model.encoder.layers.0.mlp.fc1",
                                   "base_model.model._orig_mod.text_model.encoder.layers.0.mlp.fc1",
                                   "lycoris_text_model_encoder_layers_0_mlp_fc1"}) {
    SCOPED_TRACE(module);
    SafetensorsWriter writer;
    writer.Add(absl::StrCat(module, ".lora_A.weight"), {1, 8});
    writer.Add(absl::StrCat(module, ".lora_B.weight"), {32, 1});
    AdapterFileOptions options;
    for (const bool allowed : {false, true}) {
      options.allow_unmatched_keys = allowed;
      ExpectRefused(writer, "ADAPTER_MISMATCH", "keys do not say which text encoder they are for", options);
      ExpectRefused(writer, "ADAPTER_MISMATCH", "\"text_encoder.\" or \"text_encoder_2.\"", options);
    }
  }
}

TEST_F(AdapterFileTest, ScaleIsAlphaOverRankOfTheModule) {
  EXPECT_EQ(ScaleOf(Good()), 1.0);
  EXPECT_EQ(ScaleOf(Good().Add(absl::StrCat(kLinear, ".alpha"), {}, 1.0f)), 0.5);
  EXPECT_EQ(ScaleOf(Good().Add(absl::StrCat(kLinear, ".alpha"), {1}, -3.0f)), -1.5);
  EXPECT_EQ(ScaleOf(Good().Add(absl::StrCat(kLinear, ".alpha"), "I64", {}, std::vector<int64_t>{8})), 4.0);
  EXPECT_EQ(ScaleOf(Good().Add(absl::StrCat(kLinear, ".alpha"), "F16", {}, std::vector<uint16_t>{0x3E00})), 0.75);
  EXPECT_EQ(ScaleOf(Good().Add(absl::StrCat(kLinear, ".alpha"), "BF16", {}, std::vector<uint16_t>{0x3FC0})), 0.75);
  EXPECT_EQ(ScaleOf(Good().Add(absl::StrCat(kLinear, ".alpha"), {}, 0.0f)), 1.0);
  EXPECT_EQ(
      ScaleOf(Good().Add(absl::StrCat(kLinear, ".alpha"), {}, 1.0f).Add(absl::StrCat(kLinear, ".scale"), {}, 3.0f)),
      3.0);
}

TEST_F(AdapterFileTest, ScaleFollowsThePeftConfiguration) {
  AdapterFileOptions options;
  options.peft_config = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "use_dora": false})";
  EXPECT_EQ(ScaleOf(Good(), options), 3.0);
  options.peft_config = R"({"r": 2, "lora_alpha": 6, "use_rslora": true})";
  EXPECT_DOUBLE_EQ(ScaleOf(Good(), options), 6 / std::sqrt(2.0));
  options.peft_config = R"({"r": 16, "lora_alpha": 6, "rank_pattern": {"nothing": 3, "proj_in": 2},
                            "alpha_pattern": {"attentions.0.proj_in": 1, "proj_in": 5}})";
  EXPECT_EQ(ScaleOf(Good(), options), 0.5);
  // The first that matches in the order of the file, whatever the order of the alphabet.
  options.peft_config = R"({"r": 2, "alpha_pattern": {"proj_in": 5, "attentions.0.proj_in": 1}})";
  EXPECT_EQ(ScaleOf(Good(), options), 2.5);
  // A pattern matches whole names: "roj_in" is the end of no name.
  options.peft_config = R"({"r": 2, "lora_alpha": 6, "alpha_pattern": {"roj_in": 1, "^proj_in": 2}})";
  EXPECT_EQ(ScaleOf(Good(), options), 3.0);
  EXPECT_EQ(ScaleOf(Good().AddMetadata("lora_adapter_metadata",
                                       R"({"unet.r": 2, "unet.lora_alpha": 4, "text_encoder.r": 9})")),
            2.0);
  // A component that the metadata leaves out has scale 1.
  EXPECT_EQ(ScaleOf(Good().AddMetadata("lora_adapter_metadata", R"({"text_encoder.r": 9})")), 1.0);
}

TEST_F(AdapterFileTest, RefusesPeftConfigurationsThatLie) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {R"({"r": 3})", "ADAPTER_INVALID", "rank 3 by the configuration and 2"},
      {R"({"r": 0})", "ADAPTER_INVALID", "r is 0"},
      {R"({"r": 2.5})", "ADAPTER_INVALID", "r is 2.5"},
      {R"({"r": 2, "lora_alpha": "many"})", "ADAPTER_INVALID", "lora_alpha"},
      {R"({"r": 2, "lora_alpha": 1e300})", "ADAPTER_INVALID", "scale"},
      {R"({"r": 2, "use_rslora": 1})", "ADAPTER_INVALID", "use_rslora"},
      {R"({"r": 2, "alpha_pattern": {"(": 1}})", "ADAPTER_INVALID", "regular expression"},
      {R"({"r": 2, "alpha_pattern": [1]})", "ADAPTER_INVALID", "pattern"},
      {R"([])", "ADAPTER_INVALID", "JSON"},
      {R"({"r": 2)", "ADAPTER_INVALID", "JSON"},
      {R"({"r": 2, "use_dora": true})", "ADAPTER_INVALID", "use_dora"},
      {R"({"r": 2, "use_dora": "yes"})", "ADAPTER_INVALID", "use_dora is neither"},
      {R"({"r": 2, "peft_type": "LOHA"})", "ADAPTER_UNSUPPORTED", "LOHA"},
      {R"({"r": 2, "peft_type": 7})", "ADAPTER_UNSUPPORTED", "peft_type"},
      {R"({"r": 2, "init_lora_weights": "pissa_niter_16"})", "ADAPTER_UNSUPPORTED", "pissa"},
  };
  for (const auto& [config, reason, text] : cases) {
    SCOPED_TRACE(config);
    AdapterFileOptions options;
    options.peft_config = config;
    ExpectRefused(Good(), reason, text, options);
  }
  AdapterFileOptions options;
  options.peft_config = R"({"r": 2, "lora_alpha": 6})";
  ExpectRefused(Good().Add(absl::StrCat(kLinear, ".alpha"), {}, 1.0f), "ADAPTER_INVALID", "by its PEFT configuration",
                options);
}

TEST_F(AdapterFileTest, AcceptsEveryFormOfAShape) {
  const auto accepts = [&](const char* module, std::vector<int64_t> down, std::vector<int64_t> up,
                           std::vector<int64_t> mid = {}) {
    SafetensorsWriter writer;
    writer.Add(absl::StrCat(module, ".lora_down.weight"), down);
    writer.Add(absl::StrCat(module, ".lora_up.weight"), up);
    if (!mid.empty()) {
      writer.Add(absl::StrCat(module, ".lora_mid.weight"), mid);
    }
    return Parse(writer).ok();
  };
  EXPECT_TRUE(accepts(kLinear, {2, 32, 1, 1}, {32, 2, 1, 1}));
  EXPECT_TRUE(accepts(kLinear, {2, 32, 1, 1}, {32, 2}));
  EXPECT_TRUE(accepts(kShortcut, {2, 32}, {64, 2}));
  EXPECT_TRUE(accepts(kShortcut, {2, 32, 1, 1}, {64, 2, 1, 1}));
  EXPECT_TRUE(accepts(kConv, {2, 32, 3, 3}, {32, 2, 1, 1}));
  EXPECT_TRUE(accepts(kConv, {2, 32, 1, 1}, {32, 2, 1, 1}, {2, 2, 3, 3}));
  EXPECT_TRUE(accepts(kLinear, {100, 32}, {32, 100}));
  EXPECT_FALSE(accepts(kConv, {2, 32, 1, 1}, {32, 2, 1, 1}));
  EXPECT_FALSE(accepts(kConv, {2, 32, 3, 3}, {32, 2, 3, 3}));
  EXPECT_FALSE(accepts(kConv, {2, 32, 3, 3}, {32, 2, 1, 1}, {2, 2, 3, 3}));
  EXPECT_FALSE(accepts(kConv, {2, 32, 1, 1}, {32, 2, 1, 1}, {2, 3, 3, 3}));
  EXPECT_FALSE(accepts(kConv, {2, 32, 1, 1}, {32, 2, 1, 1}, {2, 2, 1, 1}));
  EXPECT_FALSE(accepts(kLinear, {2, 32, 1}, {32, 2}));
  EXPECT_FALSE(accepts(kLinear, {32, 2}, {2, 32}));
}

using Parts = std::vector<std::pair<const char*, std::vector<int64_t>>>;

SafetensorsWriter WriterOf(const std::string& module, const Parts& parts) {
  SafetensorsWriter writer;
  for (const auto& [part, shape] : parts) {
    writer.Add(absl::StrCat(module, ".", part), shape);
  }
  return writer;
}

const Parts kLoha = {{"hada_w1_a", {32, 2}}, {"hada_w1_b", {2, 32}}, {"hada_w2_a", {32, 2}}, {"hada_w2_b", {2, 32}}};
const Parts kConvLoha = {
    {"hada_w1_a", {32, 2}}, {"hada_w1_b", {2, 288}}, {"hada_w2_a", {32, 2}}, {"hada_w2_b", {2, 32, 3, 3}}};
const Parts kTuckerLoha = {{"hada_t1", {2, 2, 3, 3}}, {"hada_w1_a", {2, 32}}, {"hada_w1_b", {2, 32}},
                           {"hada_t2", {2, 2, 3, 3}}, {"hada_w2_a", {2, 32}}, {"hada_w2_b", {2, 32}}};

TEST_F(AdapterFileTest, AcceptsEveryFormOfEveryFormat) {
  const std::tuple<const char*, Parts, const char*, int64_t> cases[] = {
      {kLinear, kLoha, "loha", 2},
      {kConv, kConvLoha, "loha", 2},
      {kConv, kTuckerLoha, "loha", 2},
      {kLinear, {{"lokr_w1", {8, 4}}, {"lokr_w2", {4, 8}}}, "lokr", 0},
      {kLinear, {{"lokr_w1", {1, 32}}, {"lokr_w2_a", {32, 3}}, {"lokr_w2_b", {3, 1}}}, "lokr", 3},
      {kLinear, {{"lokr_w1_a", {8, 2}}, {"lokr_w1_b", {2, 8}}, {"lokr_w2", {4, 4}}}, "lokr", 2},
      {kLinear,
       {{"lokr_w1_a", {8, 2}}, {"lokr_w1_b", {2, 8}}, {"lokr_w2_a", {4, 3}}, {"lokr_w2_b", {3, 4}}},
       "lokr",
       3},
      {kConv, {{"lokr_w1", {8, 8}}, {"lokr_w2", {4, 4, 3, 3}}}, "lokr", 0},
      {kConv, {{"lokr_w1", {8, 8, 1, 1}}, {"lokr_w2_a", {4, 2}}, {"lokr_w2_b", {2, 36}}}, "lokr", 2},
      {kConv,
       {{"lokr_w1", {8, 8}}, {"lokr_t2", {2, 2, 3, 3}}, {"lokr_w2_a", {2, 4}}, {"lokr_w2_b", {2, 4}}},
       "lokr",
       2},
      {kLinear, {{"diff", {32, 32}}}, "full", 0},
      {kShortcut, {{"diff", {64, 32, 1, 1}}}, "full", 0},
      {kShortcut, {{"diff", {64, 32}}}, "full", 0},
      {kLinear,
       {{"a1.weight", {32, 2}}, {"a2.weight", {2, 32}}, {"b1.weight", {32, 2}}, {"b2.weight", {2, 32}}},
       "glora",
       2},
      {kLinear,
       {{"a1.weight", {2, 32}}, {"a2.weight", {32, 2}}, {"b1.weight", {2, 32}}, {"b2.weight", {32, 2}}},
       "glora",
       2},
      {kShortcut,
       {{"a1.weight", {32, 2}}, {"a2.weight", {2, 32}}, {"b1.weight", {64, 2}}, {"b2.weight", {2, 32}}},
       "glora",
       2},
      {kShortcut,
       {{"a1.weight", {2, 32}}, {"a2.weight", {32, 2}}, {"b1.weight", {2, 32}}, {"b2.weight", {64, 2}}},
       "glora",
       2},
      {kConv,
       {{"a1.weight", {32, 2, 1, 1}},
        {"a2.weight", {2, 32, 1, 1}},
        {"b1.weight", {32, 2, 1, 1}},
        {"b2.weight", {2, 32, 3, 3}}},
       "glora",
       2},
      {kConv,
       {{"a1.weight", {32, 2}},
        {"a2.weight", {2, 32}},
        {"b1.weight", {32, 2}},
        {"b2.weight", {2, 32}},
        {"bm.weight", {2, 2, 3, 3}}},
       "glora",
       2},
      {kLinear, {{"oft_blocks", {4, 8, 8}}}, "oft", 0},
      {kConv, {{"oft_blocks", {4, 8, 8}}, {"rescale", {32, 1, 1, 1}}, {"alpha", {}}}, "oft", 0},
      {kNorm, {{"w_norm", {32}}}, "norm", 0},
      {kNorm, {{"b_norm", {32}}}, "norm", 0},
      {kNorm, {{"diff", {32}}}, "norm", 0},
      {kLinear, {{"diff_b", {32}}}, "norm", 0},
  };
  for (const auto& [module, parts, format, rank] : cases) {
    const absl::StatusOr<ParsedAdapter> parsed = Parse(WriterOf(module, parts));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->format, format);
    ASSERT_EQ(parsed->deltas.size(), 1u);
    EXPECT_EQ(parsed->deltas[0].rank, rank) << format;
  }
}

TEST_F(AdapterFileTest, AlphaCountsForProductsOnly) {
  const auto scale = [&](const Parts& parts, const char* number) {
    return ScaleOf(WriterOf(kLinear, parts).Add(absl::StrCat(kLinear, ".", number), {}, 6.0f));
  };
  EXPECT_EQ(scale(kLoha, "alpha"), 3.0);
  EXPECT_EQ(scale({{"lokr_w1", {8, 4}}, {"lokr_w2", {4, 8}}}, "alpha"), 1.0);
  EXPECT_EQ(scale({{"lokr_w1", {8, 4}}, {"lokr_w2_a", {4, 3}}, {"lokr_w2_b", {3, 8}}}, "alpha"), 2.0);
  EXPECT_EQ(scale({{"lokr_w1_a", {8, 2}}, {"lokr_w1_b", {2, 8}}, {"lokr_w2", {4, 4}}}, "alpha"), 3.0);
  EXPECT_EQ(
      scale({{"lokr_w1_a", {8, 2}}, {"lokr_w1_b", {2, 8}}, {"lokr_w2_a", {4, 3}}, {"lokr_w2_b", {3, 4}}}, "alpha"),
      2.0);
  EXPECT_EQ(scale({{"diff", {32, 32}}}, "alpha"), 1.0);
  EXPECT_EQ(ScaleOf(WriterOf(kLinear, {{"lokr_w1", {8, 4}}, {"lokr_w2", {4, 8}}})
                        .Add(absl::StrCat(kLinear, ".alpha"), "F16", {}, std::vector<uint16_t>{0x7C00})),
            1.0)
      << "an infinite alpha that does not count";
  EXPECT_EQ(scale({{"diff", {32, 32}}}, "scale"), 6.0);
}

TEST_F(AdapterFileTest, NamesWhatIsWrongWithOtherFormats) {
  const auto without = [](Parts parts, size_t which) {
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(which));
    return parts;
  };
  const auto with = [](Parts parts, size_t which, std::vector<int64_t> shape) {
    parts[which].second = std::move(shape);
    return parts;
  };
  const std::tuple<const char*, Parts, const char*, const char*> cases[] = {
      {kLinear, without(kLoha, 1), "ADAPTER_INVALID", "lacks its hada_w1_b"},
      {kLinear, without(without(kLoha, 3), 2), "ADAPTER_INVALID", "lacks its hada_w2_b and hada_w2_a"},
      {kConv, without(kTuckerLoha, 3), "ADAPTER_INVALID", "lacks its hada_t2"},
      {kLinear, with(kLoha, 1, {3, 32}), "ADAPTER_INVALID", "rank 3"},
      {kLinear, with(with(kLoha, 2, {32, 3}), 3, {3, 32}), "ADAPTER_INVALID", "rank 2"},
      {kLinear, with(kLoha, 0, {32, 2, 1}), "ADAPTER_INVALID", "3 dimensions"},
      {kLinear, with(kLoha, 0, {31, 2}), "ADAPTER_MISMATCH", "has shape [31, 2]"},
      {kConv, with(kConvLoha, 1, {2, 32}), "ADAPTER_MISMATCH", "needs [2, 288, 1, 1]"},
      {kConv, with(kTuckerLoha, 0, {2, 3, 3, 3}), "ADAPTER_INVALID", "has shape [2, 3, 3, 3]"},
      {kConv, with(kTuckerLoha, 0, {2, 2, 5, 5}), "ADAPTER_MISMATCH", "needs [2, 2, 3, 3]"},
      {kConv, with(kTuckerLoha, 1, {32, 2}), "ADAPTER_INVALID", "its up has 32"},
      {kLinear, {{"lokr_w1", {8, 4}}}, "ADAPTER_INVALID", "lacks its lokr_w2"},
      {kLinear, {{"lokr_w2", {8, 4}}}, "ADAPTER_INVALID", "lacks its lokr_w1"},
      {kLinear, {{"lokr_w1", {8, 4}}, {"lokr_w2_a", {4, 2}}}, "ADAPTER_INVALID", "lacks its lokr_w2_b"},
      {kLinear,
       {{"lokr_w1", {8, 4}}, {"lokr_w2", {4, 8}}, {"lokr_w2_a", {4, 2}}, {"lokr_w2_b", {2, 8}}},
       "ADAPTER_INVALID",
       "whole and as a product"},
      {kLinear, {{"lokr_w1", {5, 4}}, {"lokr_w2", {4, 8}}}, "ADAPTER_MISMATCH", "needs a factor of [32, 32]"},
      {kLinear, {{"lokr_w1", {0, 4}}, {"lokr_w2", {4, 8}}}, "ADAPTER_MISMATCH", "needs a factor of [32, 32]"},
      {kLinear, {{"lokr_w1", {8, 4}}, {"lokr_w2", {8, 4}}}, "ADAPTER_MISMATCH", "needs [4, 8, 1, 1]"},
      {kConv, {{"lokr_w1", {8, 8}}, {"lokr_w2", {4, 4}}}, "ADAPTER_MISMATCH", "needs [4, 4, 3, 3]"},
      {kConv, {{"lokr_w1", {8, 8, 3, 3}}, {"lokr_w2", {4, 4, 3, 3}}}, "ADAPTER_MISMATCH", "needs [8, 8, 1, 1]"},
      {kLinear, {{"diff", {32, 31}}}, "ADAPTER_MISMATCH", "needs [32, 32, 1, 1]"},
      {kLinear, {{"diff", {1024}}}, "ADAPTER_INVALID", "1 dimensions"},
      {kLinear, {{"diff", {32, 32}}, {"lokr_w1", {8, 4}}, {"lokr_w2", {4, 8}}}, "ADAPTER_INVALID", "two changes"},
      {kNoBias, {{"diff", {32, 32}}, {"diff_b", {32}}}, "ADAPTER_MISMATCH", "changes a bias, and module"},
      {kLinear, {{"diff_b", {31}}}, "ADAPTER_MISMATCH", "needs [32, 1, 1, 1]"},
      {kLinear, {{"diff_b", {32}}, {"lora_B.bias", {32}}}, "ADAPTER_INVALID", "two changes of one bias"},
      {kLinear, {{"lora_B.bias", {32}}}, "ADAPTER_INVALID", "needs a LoRA of the same module"},
      {kNorm, {{"w_norm", {31}}}, "ADAPTER_MISMATCH", "needs [32, 1, 1, 1]"},
      {kNorm, {{"w_norm", {32}}, {"diff", {32}}}, "ADAPTER_INVALID", "mean the same"},
      {kNorm, {{"w_norm", {32}}, {"dora_scale", {32}}}, "ADAPTER_INVALID", "cannot have one"},
      {kNorm, {{"lora_down.weight", {2, 32}}, {"lora_up.weight", {32, 2}}}, "ADAPTER_MISMATCH", "it is a norm"},
      {kLinear, {{"a1.weight", {32, 2}}, {"a2.weight", {2, 32}}}, "ADAPTER_INVALID", "lacks its b1 and b2"},
      {kLinear,
       {{"a1.weight", {32, 2}}, {"a2.weight", {2, 32}}, {"b1.weight", {32, 3}}, {"b2.weight", {3, 32}}},
       "ADAPTER_INVALID",
       "has rank 3"},
      {kLinear,
       {{"a1.weight", {31, 2}}, {"a2.weight", {2, 32}}, {"b1.weight", {32, 2}}, {"b2.weight", {2, 32}}},
       "ADAPTER_MISMATCH",
       "needs [32, 2, 1, 1]"},
      {kLinear, {{"oft_blocks", {4, 8, 7}}}, "ADAPTER_INVALID", "not [blocks, size, size]"},
      {kLinear, {{"oft_blocks", {8, 8, 8}}}, "ADAPTER_MISMATCH", "blocks of 32 outputs together"},
      {kLinear, {{"oft_blocks", {0, 0, 0}}}, "ADAPTER_MISMATCH", "blocks of 32 outputs together"},
      {kLinear, {{"oft_blocks", {2, 4, 8, 8}}}, "ADAPTER_UNSUPPORTED", "BOFT"},
      {kLinear, {{"oft_blocks", {4, 8, 8}}, {"rescale", {31, 1}}}, "ADAPTER_MISMATCH", "needs [32, 1, 1, 1]"},
      {kLinear, {{"oft_blocks", {4, 8, 8}}, {"dora_scale", {32, 1}}}, "ADAPTER_INVALID", "cannot have one"},
      {kLinear, {{"diff", {32, 32}}, {"rescale", {32, 1}}}, "ADAPTER_INVALID", "lacks its oft_blocks"},
      {kLinear, {{"weight", {32}}, {"on_input", {}}}, "ADAPTER_UNSUPPORTED", "IA3"},
      {kLinear, {{"dora_scale", {32, 1}}}, "ADAPTER_INVALID", "lacks its down and up"},
  };
  for (const auto& [module, parts, reason, text] : cases) {
    SCOPED_TRACE(text);
    ExpectRefused(WriterOf(module, parts), reason, text);
  }
  const float infinite = std::numeric_limits<float>::infinity();
  for (const char* const part : {"lokr_w1", "lokr_w2", "dora_scale"}) {
    SafetensorsWriter writer = WriterOf(kLinear, {{"lokr_w1", {1, 32}}, {"lokr_w2", {32, 1}}, {"dora_scale", {32, 1}}});
    SafetensorsWriter bad;
    for (const auto& [name, shape] : Parts{{"lokr_w1", {1, 32}}, {"lokr_w2", {32, 1}}, {"dora_scale", {32, 1}}}) {
      bad.Add(absl::StrCat(kLinear, ".", name), shape, std::string(name) == part ? infinite : 0.5f);
    }
    EXPECT_TRUE(Parse(writer).ok());
    ExpectRefused(bad, "ADAPTER_INVALID", absl::StrCat(part, "\" has values that are not finite"));
  }
}

TEST_F(AdapterFileTest, ShapeOfTheMagnitudeSaysWhoseNormItIs) {
  const auto parse = [&](const char* module, int64_t out, int64_t in, const char* part, std::vector<int64_t> shape) {
    return Parse(WriterOf(module, {{"lora_down.weight", {2, in}}, {"lora_up.weight", {out, 2}}, {part, shape}}));
  };
  const std::tuple<const char*, int64_t, const char*, std::vector<int64_t>, bool> sound[] = {
      {kLinear, 32, "dora_scale", {32}, true},
      {kLinear, 32, "dora_scale", {32, 1}, true},
      {kLinear, 32, "dora_scale", {1, 32}, false},
      {kShortcut, 64, "dora_scale", {64, 1, 1, 1}, true},
      {kShortcut, 64, "dora_scale", {1, 32, 1, 1}, false},
      {kLinear, 32, "lora_magnitude_vector", {32}, true},
      {kLinear, 32, "lora_magnitude_vector.weight", {1, 32}, true},
      {kShortcut, 64, "lora_magnitude_vector", {1, 64, 1, 1}, true},
  };
  for (const auto& [module, out, part, shape, outputs] : sound) {
    SCOPED_TRACE(testing::Message() << part << " of " << shape.size() << " dimensions");
    const absl::StatusOr<ParsedAdapter> parsed = parse(module, out, 32, part, shape);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->format, "dora");
    EXPECT_EQ(parsed->deltas[0].magnitude_of_outputs, outputs);
  }
  for (const auto& [part, shape] : Parts{{"dora_scale", {32}},
                                         {"dora_scale", {1, 64}},
                                         {"dora_scale", {}},
                                         {"dora_scale", {64, 1, 1, 1, 1}},
                                         {"dora_scale", {64, 32}},
                                         {"lora_magnitude_vector", {1, 32, 1, 1}}}) {
    const absl::Status status = parse(kShortcut, 64, 32, part, shape).status();
    EXPECT_EQ(GetErrorDetails(status).reason, "ADAPTER_MISMATCH") << status;
  }
  ExpectRefused(
      Good().Add(absl::StrCat(kLinear, ".dora_scale"), {32}).Add(absl::StrCat(kLinear, ".lora_magnitude_vector"), {32}),
      "ADAPTER_INVALID", "mean the same");
  AdapterFileOptions options;
  options.peft_config = R"({"r": 2, "lora_alpha": 2, "use_dora": true})";
  EXPECT_EQ(ScaleOf(Good().Add(absl::StrCat(kLinear, ".lora_magnitude_vector"), {32}), options), 1.0);
}

TEST_F(AdapterFileTest, RefusesUnsoundModules) {
  const std::string down = absl::StrCat(kLinear, ".lora_down.weight");
  const std::string up = absl::StrCat(kLinear, ".lora_up.weight");
  SafetensorsWriter orphan = Good();
  orphan.Add("lora_unet_input_blocks_4_1_proj_out.alpha", {});
  ExpectRefused(orphan, "ADAPTER_INVALID", "lacks its down and up");
  SafetensorsWriter twice = Good();
  twice.Add("unet.down_blocks.1.attentions.0.proj_in.lora_A.weight", {2, 32});
  ExpectRefused(twice, "ADAPTER_INVALID", "mean the same");
  ExpectRefused(SafetensorsWriter().Add(down, {2, 32}).Add(up, {32, 3}), "ADAPTER_INVALID", "rank 2");
  const float huge = std::numeric_limits<float>::infinity();
  ExpectRefused(SafetensorsWriter().Add(down, {2, 32}, huge).Add(up, {32, 2}), "ADAPTER_INVALID", "not finite");
  ExpectRefused(SafetensorsWriter().Add(down, "F16", {1, 32}, std::vector<uint16_t>(32, 0xFC00)).Add(up, {32, 1}),
                "ADAPTER_INVALID", "not finite");
  ExpectRefused(SafetensorsWriter().Add(down, "BF16", {1, 32}, std::vector<uint16_t>(32, 0x7FC1)).Add(up, {32, 1}),
                "ADAPTER_INVALID", "not finite");
  ExpectRefused(SafetensorsWriter().Add(down, "F64", {1, 32}, std::vector<double>(32, 1e39)).Add(up, {32, 1}),
                "ADAPTER_INVALID", "not finite");
  ExpectRefused(SafetensorsWriter().Add(down, "F8_E4M3", {1, 32}, std::vector<uint8_t>(32, 1)).Add(up, {32, 1}),
                "ADAPTER_INVALID", "floating-point");
  ExpectRefused(Good().Add(absl::StrCat(kLinear, ".alpha"), {2}), "ADAPTER_INVALID", "one finite number");
  ExpectRefused(Good().Add(absl::StrCat(kLinear, ".lora_down.bias"), {2}), "ADAPTER_UNSUPPORTED", "a bias inside LoRA");
  ExpectRefused(Good().Add(absl::StrCat(kLinear, ".lora_B.bias"), {32}).Add(absl::StrCat(kLinear, ".dora_scale"), {32}),
                "ADAPTER_INVALID", "without a magnitude");
}

TEST_F(AdapterFileTest, BiasIsAChangeOfItsOwn) {
  SafetensorsWriter writer = Good();
  writer.Add(absl::StrCat(kLinear, ".alpha"), {}, 1.0f).Add(absl::StrCat(kLinear, ".lora_B.bias"), {32});
  writer.Add(absl::StrCat(kConv, ".diff"), {32, 32, 3, 3}).Add(absl::StrCat(kConv, ".diff_b"), {32});
  const absl::StatusOr<ParsedAdapter> parsed = Parse(writer);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->matched_modules, 2u);
  ASSERT_EQ(parsed->deltas.size(), 4u);
  for (size_t i : {0, 2}) {
    const ParsedDelta& weight = parsed->deltas[i];
    const ParsedDelta& bias = parsed->deltas[i + 1];
    EXPECT_EQ(table_.modules[weight.module].bias, std::optional<size_t>(bias.module));
    EXPECT_TRUE(table_.modules[bias.module].is_bias);
    // That of LoRA's up has LoRA's scale; a difference has none.
    EXPECT_EQ(bias.scale, weight.rank > 0 ? 0.5 : 1.0);
  }
}

TEST_F(AdapterFileTest, AlphaOfOftIsABoundForOneOutput) {
  const SafetensorsWriter blocks = WriterOf(kLinear, {{"oft_blocks", {4, 8, 8}}});
  const auto bound = [&](float alpha) {
    const absl::StatusOr<ParsedAdapter> parsed =
        Parse(SafetensorsWriter(blocks).Add(absl::StrCat(kLinear, ".alpha"), {}, alpha));
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->deltas.at(0).scale, 1.0);
    return parsed->deltas.at(0).constraint;
  };
  EXPECT_EQ(bound(0.25f), 8.0);
  EXPECT_EQ(bound(0.0f), 0.0);
  EXPECT_EQ(Parse(blocks)->deltas.at(0).constraint, 0.0);
  ExpectRefused(SafetensorsWriter(blocks).Add(absl::StrCat(kLinear, ".alpha"), {}, -1.0f), "ADAPTER_INVALID",
                "a bound below 0");
}

TEST_F(AdapterFileTest, OftOfPeftNeedsItsConfiguration) {
  const std::string conv = "unet.down_blocks.0.resnets.0.conv1", linear = "unet.down_blocks.1.attentions.0.proj_in";
  const auto blocks = [](const std::string& module, std::vector<int64_t> shape) {
    return SafetensorsWriter().Add(module + ".oft_R.weight", std::move(shape));
  };
  AdapterFileOptions options;
  options.peft_config = R"({"peft_type": "OFT", "use_cayley_neumann": false})";
  const absl::StatusOr<ParsedAdapter> parsed = Parse(blocks(linear, {4, 28}), options);  // blocks of 8 inputs
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->format, "oft");
  EXPECT_EQ(parsed->tensor_bytes, 4 * 8 * 8 * sizeof(float));
  ExpectRefused(blocks(linear, {4, 28}), "ADAPTER_INVALID", "no adapter_config.json");
  ExpectRefused(blocks(linear, {4, 27}), "ADAPTER_MISMATCH", "for blocks of 32 inputs", options);
  ExpectRefused(blocks(linear, {1, 28}), "ADAPTER_MISMATCH", "for blocks of 32 inputs", options);
  ExpectRefused(blocks(conv, {36, 28}), "ADAPTER_MISMATCH", "a kernel of 1x1", options);
  ExpectRefused(blocks(linear, {4, 28}).Add(linear + ".oft_blocks", {4, 8, 8}), "ADAPTER_INVALID", "of two formats",
                options);
  options.peft_config = R"({"peft_type": "OFT", "use_cayley_neumann": true, "block_share": true})";
  EXPECT_TRUE(Parse(blocks(linear, {1, 28}), options).ok());
  for (const auto& [config, text] :
       {std::pair(R"({"peft_type": "OFT"})", "without use_cayley_neumann"),
        {R"({"peft_type": "OFT", "use_cayley_neumann": true, "coft": true})", "coft"},
        {R"({"peft_type": "OFT", "use_cayley_neumann": true, "bias": "oft_only"})", "bias"}}) {
    options.peft_config = config;
    ExpectRefused(blocks(linear, {4, 28}), "ADAPTER_UNSUPPORTED", text, options);
  }
  options.peft_config = R"({"peft_type": "OFT", "use_cayley_neumann": true, "num_cayley_neumann_terms": 0})";
  ExpectRefused(blocks(linear, {4, 28}), "ADAPTER_INVALID", "num_cayley_neumann_terms is 0", options);
}

TEST_F(AdapterFileTest, SaysWhatItChanges) {
  SafetensorsWriter writer = Good();
  const std::string text = "lora_te2_text_model_encoder_layers_0_mlp_fc1";
  writer.Add(text + ".lora_down.weight", "F64", {3, 16}, std::vector<double>(48, 0.25));
  writer.Add(text + ".lora_up.weight", {64, 3});
  const absl::StatusOr<ParsedAdapter> parsed = Parse(writer);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->targets, ElementsAre("text_encoder_2", "unet"));
  EXPECT_EQ(parsed->rank_max, 3u);
  EXPECT_EQ(parsed->deltas.size(), 2u);
  EXPECT_EQ(parsed->tensor_bytes, 4u * (2 * 32 + 32 * 2 + 3 * 16 + 64 * 3));
  EXPECT_LT(parsed->deltas[0].module, parsed->deltas[1].module);
}

}  // namespace
}  // namespace hotlora
