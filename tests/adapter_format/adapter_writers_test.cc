// One LoRA in the names of each program that writes LoRAs for SDXL. docs/adapters.md lists the programs with the
// version that was read.

#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/adapter_format/adapter_file.h"
#include "src/base/error_details.h"
#include "tests/adapter_format/safetensors_writer.h"
#include "tests/adapter_format/sdxl_modules.h"

namespace hotlora {
namespace {

// Four modules of the tiny model: self-attention, a 3x3 convolution, and one of each text encoder. All have 2 ranks.
struct Layer {
  std::vector<int64_t> down, up;
};
const Layer kLayers[] = {{{2, 32}, {32, 2}}, {{2, 32, 3, 3}, {32, 2, 1, 1}}, {{2, 8}, {8, 2}}, {{2, 16}, {16, 2}}};
constexpr size_t kLayerCount = 4;

constexpr const char* kKohya[kLayerCount] = {
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", "lora_unet_input_blocks_1_0_in_layers_2",
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "lora_te2_text_model_encoder_layers_1_self_attn_q_proj"};

// How one program names these modules and their halves. A module without a name is one that it does not train.
struct Writer {
  const char* program;
  const char* names[kLayerCount];
  const char* down;
  const char* up;
  bool has_alpha;
  const char* metadata = nullptr;  // lora_adapter_metadata of the header
  const char* config = nullptr;    // adapter_config.json
};

constexpr const char* kScaleOfHalf = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 1})";
constexpr const char* kScaleOfHalfByComponent =
    R"({"unet.r": 2, "unet.lora_alpha": 1, "text_encoder.r": 2, "text_encoder.lora_alpha": 1, "text_encoder_2.r": 2,
        "text_encoder_2.lora_alpha": 1})";

#define KOHYA_HALVES ".lora_down.weight", ".lora_up.weight"
#define PEFT_HALVES ".lora_A.weight", ".lora_B.weight"

const Writer kWriters[] = {
    {"sd-scripts, LyCORIS in it, OneTrainer KOHYA, ai-toolkit, SDXL-Lightning",
     {kKohya[0], kKohya[1], kKohya[2], kKohya[3]},
     KOHYA_HALVES,
     true},
    {"OneTrainer LEGACY, SimpleTuner comfyui, diffusers' kohya converter, invoke-training, LCM-LoRA, Hyper-SD, DMD2",
     {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", "lora_unet_down_blocks_0_resnets_0_conv1",
      kKohya[2], kKohya[3]},
     KOHYA_HALVES,
     true},
    {"SimpleTuner comfyui, whose metadata are the last component's, https://github.com/Comfy-Org/ComfyUI/pull/15830",
     {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", "lora_unet_down_blocks_0_resnets_0_conv1",
      kKohya[2], kKohya[3]},
     KOHYA_HALVES,
     true,
     R"({"peft_type": "LORA", "r": 7, "lora_alpha": 21})"},
    {"OneTrainer OMI",
     {"unet.input_blocks.4.1.transformer_blocks.0.attn1.to_q", "unet.input_blocks.1.0.in_layers.2",
      "clip_l.text_model.encoder.layers.0.self_attn.q_proj", "clip_g.text_model.encoder.layers.1.self_attn.q_proj"},
     KOHYA_HALVES,
     true},
    {"OneTrainer COMFY",
     {"diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q",
      "diffusion_model.input_blocks.1.0.in_layers.2",
      "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj",
      "text_encoders.clip_g.transformer.text_model.encoder.layers.1.self_attn.q_proj"},
     PEFT_HALVES,
     true},
    {"OneTrainer ORIGINAL",
     {"input_blocks.4.1.transformer_blocks.0.attn1.to_q", "input_blocks.1.0.in_layers.2", nullptr, nullptr},
     PEFT_HALVES,
     true},
    {"OneTrainer INTERNAL",
     {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "unet.down_blocks.0.resnets.0.conv1",
      "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
      "text_encoder_2.text_model.encoder.layers.1.self_attn.q_proj"},
     KOHYA_HALVES,
     true},
    {"ComfyUI's LoraSave",
     {"diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q",
      "diffusion_model.input_blocks.1.0.in_layers.2",
      "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj",
      "text_encoders.clip_g.transformer.text_model.encoder.layers.1.self_attn.q_proj"},
     KOHYA_HALVES,
     true},
    {"ComfyUI's SaveLoRA",
     {"diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q",
      "diffusion_model.input_blocks.1.0.in_layers.2", nullptr, nullptr},
     KOHYA_HALVES,
     true},
    {"diffusers' training scripts, SimpleTuner diffusers, OneTrainer DIFFUSERS",
     {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "unet.down_blocks.0.resnets.0.conv1",
      "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
      "text_encoder_2.text_model.encoder.layers.1.self_attn.q_proj"},
     PEFT_HALVES,
     false,
     kScaleOfHalfByComponent},
    {"the same with transformers 5",
     {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "unet.down_blocks.0.resnets.0.conv1",
      "text_encoder.encoder.layers.0.self_attn.q_proj", "text_encoder_2.encoder.layers.1.self_attn.q_proj"},
     PEFT_HALVES,
     false,
     kScaleOfHalfByComponent},
    {"diffusers' save_lora_weights of converted states",
     {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "unet.down_blocks.0.resnets.0.conv1", nullptr,
      nullptr},
     ".lora.down.weight",
     ".lora.up.weight",
     false,
     kScaleOfHalfByComponent},
    {"diffusers' save_lora_adapter",
     {"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.0.resnets.0.conv1", nullptr, nullptr},
     PEFT_HALVES,
     false,
     kScaleOfHalf},
    {"SimpleTuner before it wrote kohya's names, https://github.com/Comfy-Org/ComfyUI/issues/12452",
     {"diffusion_model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
      "diffusion_model.down_blocks.0.resnets.0.conv1", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
      "text_encoder_2.text_model.encoder.layers.1.self_attn.q_proj"},
     PEFT_HALVES,
     true},
    {"LyCORIS' wrapper, SimpleTuner lycoris",
     {"lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", "lycoris_down_blocks_0_resnets_0_conv1",
      nullptr, nullptr},
     KOHYA_HALVES,
     true},
    {"PEFT, a folder for the UNet alone",
     {"base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
      "base_model.model.down_blocks.0.resnets.0.conv1", nullptr, nullptr},
     PEFT_HALVES,
     false,
     nullptr,
     kScaleOfHalf},
    {"PEFT with an adapter's name in keys, https://github.com/huggingface/diffusers/issues/11675",
     {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "unet.down_blocks.0.resnets.0.conv1",
      "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
      "text_encoder_2.text_model.encoder.layers.1.self_attn.q_proj"},
     ".lora_A.default_0.weight",
     ".lora_B.default_0.weight",
     false,
     kScaleOfHalfByComponent},
    {"diffusers' LCM script of webdatasets, and get_peft_model in the others, "
     "https://github.com/huggingface/diffusers/issues/11790",
     {"unet.base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
      "unet.base_model.model.down_blocks.0.resnets.0.conv1",
      "text_encoder.base_model.model.text_model.encoder.layers.0.self_attn.q_proj",
      "text_encoder_2.base_model.model.text_model.encoder.layers.1.self_attn.q_proj"},
     PEFT_HALVES,
     false,
     kScaleOfHalfByComponent},
    {"torch.compile under any of these, https://github.com/huggingface/diffusers/issues/9279",
     {"unet._orig_mod.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
      "lora_unet__orig_mod_input_blocks_1_0_in_layers_2", kKohya[2], kKohya[3]},
     KOHYA_HALVES,
     true},
};

// The same numbers whatever the names are; the scale is 1/2 by alpha tensors or by a configuration.
SafetensorsWriter FileOf(const Writer& writer) {
  SafetensorsWriter file;
  for (size_t i = 0; i < kLayerCount; ++i) {
    if (writer.names[i] != nullptr) {
      file.Add(absl::StrCat(writer.names[i], writer.down), kLayers[i].down, 0.25f + static_cast<float>(i));
      file.Add(absl::StrCat(writer.names[i], writer.up), kLayers[i].up, -0.5f - static_cast<float>(i));
      if (writer.has_alpha) {
        file.Add(absl::StrCat(writer.names[i], ".alpha"), {}, 1.0f);
      }
    }
  }
  if (writer.metadata != nullptr) {
    file.AddMetadata("lora_adapter_metadata", writer.metadata);
  }
  return file;
}

class AdapterWritersTest : public testing::Test {
 protected:
  absl::StatusOr<ParsedAdapter> Parse(const SafetensorsWriter& writer, const char* config = nullptr) {
    AdapterFileOptions options;
    if (config != nullptr) {
      options.peft_config = config;
    }
    return ParseAdapter(writer.Parse(), keys_, table_, options);
  }

  static std::string BytesOf(const ParsedAdapter& adapter, size_t tensor) {
    const StoredTensor& stored = adapter.file.tensors()[tensor];
    return {reinterpret_cast<const char*>(adapter.file.Data(stored)), stored.bytes()};
  }

  const ModuleTable table_ = TinySdxl();
  const KeyMap keys_ = KeyMap::Build(table_).value();
};

TEST_F(AdapterWritersTest, EachSaysWhatTheKohyaSpellingSays) {
  for (const Writer& writer : kWriters) {
    SCOPED_TRACE(writer.program);
    Writer kohya = kWriters[0];
    for (size_t i = 0; i < kLayerCount; ++i) {
      kohya.names[i] = writer.names[i] == nullptr ? nullptr : kKohya[i];
    }
    const absl::StatusOr<ParsedAdapter> expected = Parse(FileOf(kohya));
    const absl::StatusOr<ParsedAdapter> parsed = Parse(FileOf(writer), writer.config);
    ASSERT_TRUE(expected.ok()) << expected.status();
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_THAT(parsed->unmatched_keys, testing::IsEmpty());
    ASSERT_EQ(parsed->deltas.size(), expected->deltas.size());
    for (size_t i = 0; i < parsed->deltas.size(); ++i) {
      EXPECT_EQ(parsed->deltas[i].module, expected->deltas[i].module);
      EXPECT_EQ(parsed->deltas[i].scale, 0.5);
      EXPECT_EQ(expected->deltas[i].scale, 0.5);
      EXPECT_EQ(BytesOf(*parsed, *parsed->deltas[i].first.down), BytesOf(*expected, *expected->deltas[i].first.down));
      EXPECT_EQ(BytesOf(*parsed, *parsed->deltas[i].first.up), BytesOf(*expected, *expected->deltas[i].first.up));
    }
  }
}

// https://github.com/Comfy-Org/ComfyUI/issues/3494: diffusers' converter to kohya's names leaves the last dot of a
// module's name in the magnitudes alone.
TEST_F(AdapterWritersTest, ReadsTheMagnitudesOfDiffusersKohyaConverter) {
  const char* const names[][2] = {
      {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
       "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1.to_q"},
      {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0",
       "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out.0"},
      {"lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
       "lora_te1_text_model_encoder_layers_0_self_attn.q_proj"},
  };
  SafetensorsWriter writer;
  for (const auto& [halves, magnitude] : names) {
    const int64_t width = absl::string_view(halves).find("te1") != absl::string_view::npos ? 8 : 32;
    writer.Add(absl::StrCat(halves, ".lora_down.weight"), {2, width});
    writer.Add(absl::StrCat(halves, ".lora_up.weight"), {width, 2});
    writer.Add(absl::StrCat(magnitude, ".lora_magnitude_vector"), {width});
  }
  const absl::StatusOr<ParsedAdapter> parsed = Parse(writer);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->format, "dora");
  ASSERT_EQ(parsed->deltas.size(), 3u);
  for (const ParsedDelta& delta : parsed->deltas) {
    EXPECT_TRUE(delta.magnitude.has_value() && delta.magnitude_of_outputs);
  }
}

// Halves in one spelling, magnitudes in another: SimpleTuner comfyui; of convolutions: OneTrainer DIFFUSERS.
TEST_F(AdapterWritersTest, ReadsMagnitudesBesideHalvesOfAnotherSpelling) {
  const std::string attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
  SafetensorsWriter mixed;
  mixed.Add("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", {2, 32});
  mixed.Add("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight", {32, 2});
  mixed.Add(absl::StrCat("unet.", attention, ".lora_magnitude_vector"), {32});
  SafetensorsWriter convolution;
  convolution.Add("unet.down_blocks.0.resnets.0.conv1.lora_A.weight", {2, 32, 3, 3});
  convolution.Add("unet.down_blocks.0.resnets.0.conv1.lora_B.weight", {32, 2, 1, 1});
  convolution.Add("unet.down_blocks.0.resnets.0.conv1.lora_magnitude_vector.weight", {1, 32, 1, 1});
  for (const SafetensorsWriter& writer : {mixed, convolution}) {
    const absl::StatusOr<ParsedAdapter> parsed = Parse(writer);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ASSERT_EQ(parsed->deltas.size(), 1u);
    EXPECT_TRUE(parsed->deltas[0].magnitude.has_value() && parsed->deltas[0].magnitude_of_outputs);
  }
}

// ComfyUI's LoraSave of text encoders also writes their embeddings, and a projection that CLIP-L does not have.
TEST_F(AdapterWritersTest, PassesOverWhatLoraSaveAddsOnlyWhereAllowed) {
  const std::string first = "text_encoders.clip_l.transformer.", second = "text_encoders.clip_g.transformer.";
  const std::pair<std::string, int64_t> layers[] = {{first + "text_model.encoder.layers.0.self_attn.q_proj", 8},
                                                    {second + "text_projection", 16},
                                                    {first + "text_model.embeddings.token_embedding", 8},
                                                    {first + "text_projection", 8}};
  SafetensorsWriter writer;
  for (const auto& [name, width] : layers) {
    writer.Add(name + ".lora_down.weight", {2, width});
    writer.Add(name + ".lora_up.weight", {width, 2});
  }
  EXPECT_EQ(GetErrorDetails(Parse(writer).status()).reason, "ADAPTER_MISMATCH");
  AdapterFileOptions options;
  options.allow_unmatched_keys = true;
  const absl::StatusOr<ParsedAdapter> parsed = ParseAdapter(writer.Parse(), keys_, table_, options);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->matched_modules, 2u);
  EXPECT_THAT(parsed->unmatched_keys, testing::SizeIs(4));
}

// https://github.com/invoke-ai/InvokeAI/pull/9517
TEST_F(AdapterWritersTest, RefusesDoraOfAiToolkitByName) {
  SafetensorsWriter writer;
  writer.Add(absl::StrCat(kKohya[0], ".lora_down.weight"), {2, 32});
  writer.Add(absl::StrCat(kKohya[0], ".lora_up.weight"), {32, 2});
  writer.Add(absl::StrCat(kKohya[0], ".magnitude"), {32});
  const absl::Status status = Parse(writer).status();
  EXPECT_EQ(GetErrorDetails(status).reason, "ADAPTER_UNSUPPORTED") << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("DoRA of ai-toolkit"));
}

TEST_F(AdapterWritersTest, RefusesAFileOfSeveralAdapters) {
  SafetensorsWriter writer;
  for (const char* const name : {"night", "rain"}) {
    writer.Add(absl::StrCat("unet.conv_in.lora_A.", name, ".weight"), {2, 4, 3, 3});
    writer.Add(absl::StrCat("unet.conv_in.lora_B.", name, ".weight"), {32, 2, 1, 1});
  }
  const absl::Status status = Parse(writer).status();
  EXPECT_EQ(GetErrorDetails(status).reason, "ADAPTER_INVALID") << status;
  EXPECT_THAT(std::string(status.message()),
              testing::HasSubstr("several adapters, by the names in its keys: \"night\", "
                                 "\"rain\""));
}

}  // namespace
}  // namespace hotlora
