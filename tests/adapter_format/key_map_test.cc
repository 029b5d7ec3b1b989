#include "src/adapter_format/key_map.h"

#include <map>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/adapter_format/sdxl_modules.h"

namespace hotlora {
namespace {

class KeyMapTest : public testing::Test {
 protected:
  // "component path" of the module, or "".
  std::string PathOf(const std::string& spelling) {
    const auto index = keys_.Find(spelling);
    if (!index.has_value()) {
      return "";
    }
    const AdaptableModule& module = table_.modules[*index];
    const char* const names[] = {"te1 ", "te2 ", "unet "};
    return names[static_cast<int>(module.component)] + module.path;
  }

  const ModuleTable table_ = FullSdxl();
  const KeyMap keys_ = KeyMap::Build(table_).value();
};

TEST_F(KeyMapTest, TableHasTheModulesOfSdxl) {
  // facts C: 722 modules in transformers; 12 and 32 text layers of 6 linears, and text_projection.
  std::map<Component, int> count;
  int transformers = 0;
  for (const AdaptableModule& module : table_.modules) {
    if (module.shape.size() == 1) {
      continue;
    }
    ++count[module.component];
    transformers += module.path.find("attentions.") != std::string::npos;
  }
  EXPECT_EQ(transformers, 722);
  EXPECT_EQ(count[Component::kTextEncoder], 72);
  EXPECT_EQ(count[Component::kTextEncoder2], 193);
}

TEST_F(KeyMapTest, FindsTheExamplesOfTheTable) {
  const std::pair<const char*, const char*> examples[] = {
      {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
       "unet down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"},
      {"lora_unet_input_blocks_7_1_transformer_blocks_9_ff_net_0_proj",
       "unet down_blocks.2.attentions.0.transformer_blocks.9.ff.net.0.proj"},
      {"lora_unet_input_blocks_3_0_op", "unet down_blocks.0.downsamplers.0.conv"},
      {"lora_unet_input_blocks_6_0_op", "unet down_blocks.1.downsamplers.0.conv"},
      {"lora_unet_output_blocks_2_2_conv", "unet up_blocks.0.upsamplers.0.conv"},
      {"lora_unet_output_blocks_5_2_conv", "unet up_blocks.1.upsamplers.0.conv"},
      {"lora_unet_input_blocks_4_0_emb_layers_1", "unet down_blocks.1.resnets.0.time_emb_proj"},
      {"lora_unet_input_blocks_2_0_in_layers_2", "unet down_blocks.0.resnets.1.conv1"},
      {"lora_unet_output_blocks_8_0_skip_connection", "unet up_blocks.2.resnets.2.conv_shortcut"},
      {"lora_unet_output_blocks_3_1_proj_out", "unet up_blocks.1.attentions.0.proj_out"},
      {"lora_unet_middle_block_0_out_layers_3", "unet mid_block.resnets.0.conv2"},
      {"lora_unet_middle_block_1_transformer_blocks_9_attn2_to_out_0",
       "unet mid_block.attentions.0.transformer_blocks.9.attn2.to_out.0"},
      {"lora_unet_middle_block_2_in_layers_2", "unet mid_block.resnets.1.conv1"},
      {"lora_unet_input_blocks_0_0", "unet conv_in"},
      {"lora_unet_out_2", "unet conv_out"},
      {"lora_unet_time_embed_0", "unet time_embedding.linear_1"},
      {"lora_unet_label_emb_0_2", "unet add_embedding.linear_2"},
      {"lycoris_down_blocks_1_attentions_0_proj_in", "unet down_blocks.1.attentions.0.proj_in"},
      {"lycoris_input_blocks_4_1_proj_in", "unet down_blocks.1.attentions.0.proj_in"},
      {"diffusion_model.input_blocks.4.1.proj_in", "unet down_blocks.1.attentions.0.proj_in"},
      {"unet.conv_in", "unet conv_in"},
      {"base_model.model.conv_in", "unet conv_in"},
      {"unet.base_model.model.conv_in", "unet conv_in"},
      {"unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q",
       "unet mid_block.attentions.0.transformer_blocks.0.attn1.to_q"},
      {"mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out",
       "unet mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"},
      {"lora_te1_text_model_encoder_layers_11_mlp_fc1", "te1 text_model.encoder.layers.11.mlp.fc1"},
      {"lora_te_text_model_encoder_layers_0_self_attn_q_proj", "te1 text_model.encoder.layers.0.self_attn.q_proj"},
      {"lora_te2_text_model_encoder_layers_31_mlp_fc1", "te2 text_model.encoder.layers.31.mlp.fc1"},
      {"lora_te2_text_projection", "te2 text_projection"},
      {"oft_unet_input_blocks_4_1_proj_in", "unet down_blocks.1.attentions.0.proj_in"},
      {"lora_unet_input_blocks_1_0_in_layers_0", "unet down_blocks.0.resnets.0.norm1"},
      {"lora_unet_output_blocks_8_0_out_layers_0", "unet up_blocks.2.resnets.2.norm2"},
      {"lora_unet_input_blocks_4_1_norm", "unet down_blocks.1.attentions.0.norm"},
      {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_norm3",
       "unet down_blocks.1.attentions.0.transformer_blocks.0.norm3"},
      {"lora_unet_out_0", "unet conv_norm_out"},
      {"lora_te1_text_model_final_layer_norm", "te1 text_model.final_layer_norm"},
      {"lora_te2_text_model_encoder_layers_31_layer_norm2", "te2 text_model.encoder.layers.31.layer_norm2"},
      {"text_encoder.encoder.layers.3.self_attn.out_proj", "te1 text_model.encoder.layers.3.self_attn.out_proj"},
      {"text_encoder_2.text_model.encoder.layers.3.self_attn.to_out",
       "te2 text_model.encoder.layers.3.self_attn.out_proj"},
  };
  for (const auto& [spelling, path] : examples) {
    EXPECT_EQ(PathOf(spelling), path) << spelling;
  }
}

TEST_F(KeyMapTest, KnowsNothingElse) {
  for (const char* const spelling :
       {"", "lora_unet_", "lora_unet_down_blocks_0_attentions_0_proj_in", "lora_unet_conv",
        "lora_te1_text_model_encoder_layers_12_mlp_fc1", "text_model.encoder.layers.0.mlp.fc1",
        "lora_unet_double_blocks_0_img_attn_qkv", "unet.Conv_in", "lora_unet_input_blocks_1_1_proj_in"}) {
    EXPECT_EQ(PathOf(spelling), "") << spelling;
  }
}

TEST_F(KeyMapTest, SaysWhereASpellingLeavesTheTextEncoderOpen) {
  for (const char* const spelling :
       {"text_model.encoder.layers.0.mlp.fc1", "encoder.layers.31.self_attn.q_proj",
        "base_model.model.text_model.encoder.layers.0.self_attn.q_proj", "base_model.model.text_projection",
        "lycoris_text_model_encoder_layers_0_mlp_fc1", "_orig_mod.text_model.encoder.layers.0.mlp.fc1"}) {
    EXPECT_EQ(PathOf(spelling), "") << spelling;
    EXPECT_TRUE(keys_.LeavesTextEncoderOpen(spelling)) << spelling;
  }
  for (const char* const spelling :
       {"", "conv_in", "base_model.model.conv_in", "text_encoder.text_model.encoder.layers.0.mlp.fc1",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_model.encoder.layers.32.mlp.fc1"}) {
    EXPECT_FALSE(keys_.LeavesTextEncoderOpen(spelling)) << spelling;
  }
}

TEST_F(KeyMapTest, RefusesASpellingOfTwoModules) {
  ModuleTable table;
  table.modules = {{Component::kUnet, "block.a_b", {4, 4}}, {Component::kUnet, "block_a.b", {4, 4}}};
  const absl::Status status = KeyMap::Build(table).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("lora_unet_block_a_b"));
}

}  // namespace
}  // namespace hotlora
