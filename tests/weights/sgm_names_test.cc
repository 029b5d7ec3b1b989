#include "src/weights/sgm_names.h"

#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(SgmNamesTest, UnetNamesOfStockSdxl) {
  const SgmUnetNames names(2, {"0", "1"});
  EXPECT_EQ(names.OfParameter("conv_in.weight"), "input_blocks.0.0.weight");
  EXPECT_EQ(names.OfParameter("conv_norm_out.bias"), "out.0.bias");
  EXPECT_EQ(names.OfParameter("add_embedding.linear_2.weight"), "label_emb.0.2.weight");
  EXPECT_EQ(names.OfParameter("down_blocks.0.resnets.1.norm1.weight"), "input_blocks.2.0.in_layers.0.weight");
  EXPECT_EQ(names.OfParameter("down_blocks.1.downsamplers.0.conv.bias"), "input_blocks.6.0.op.bias");
  EXPECT_EQ(names.OfParameter("down_blocks.2.attentions.0.transformer_blocks.9.ff.net.0.proj.weight"),
            "input_blocks.7.1.transformer_blocks.9.ff.net.0.proj.weight");
  EXPECT_EQ(names.OfParameter("mid_block.resnets.1.conv2.weight"), "middle_block.2.out_layers.3.weight");
  EXPECT_EQ(names.OfParameter("mid_block.attentions.0.norm.weight"), "middle_block.1.norm.weight");
  EXPECT_EQ(names.OfParameter("up_blocks.0.upsamplers.0.conv.weight"), "output_blocks.2.2.conv.weight");
  EXPECT_EQ(names.OfParameter("up_blocks.2.resnets.2.conv_shortcut.weight"),
            "output_blocks.8.0.skip_connection.weight");
  EXPECT_EQ(names.OfParameter("nothing.of.ours"), "");
}

TEST(SgmNamesTest, UpsamplerIsTheSecondPartWithoutAttention) {
  const SgmUnetNames names(1, {});
  EXPECT_EQ(names.OfParameter("up_blocks.0.upsamplers.0.conv.weight"), "output_blocks.1.1.conv.weight");
}

TEST(SgmNamesTest, VaeLevelsAreReversed) {
  EXPECT_EQ(SgmVaeParameter("decoder.conv_in.weight", 4), "decoder.conv_in.weight");
  EXPECT_EQ(SgmVaeParameter("post_quant_conv.bias", 4), "post_quant_conv.bias");
  EXPECT_EQ(SgmVaeParameter("decoder.conv_norm_out.bias", 4), "decoder.norm_out.bias");
  EXPECT_EQ(SgmVaeParameter("decoder.mid_block.resnets.1.conv1.bias", 4), "decoder.mid.block_2.conv1.bias");
  EXPECT_EQ(SgmVaeParameter("decoder.mid_block.attentions.0.to_out.0.weight", 4), "decoder.mid.attn_1.proj_out.weight");
  EXPECT_EQ(SgmVaeParameter("decoder.up_blocks.0.resnets.2.norm2.weight", 4), "decoder.up.3.block.2.norm2.weight");
  EXPECT_EQ(SgmVaeParameter("decoder.up_blocks.2.resnets.0.conv_shortcut.weight", 4),
            "decoder.up.1.block.0.nin_shortcut.weight");
  EXPECT_EQ(SgmVaeParameter("decoder.up_blocks.1.upsamplers.0.conv.weight", 4), "decoder.up.2.upsample.conv.weight");
}

TEST(SgmNamesTest, VaeEncoderLevelsAreNot) {
  EXPECT_EQ(SgmVaeParameter("quant_conv.weight", 4), "quant_conv.weight");
  EXPECT_EQ(SgmVaeParameter("encoder.conv_norm_out.weight", 4), "encoder.norm_out.weight");
  EXPECT_EQ(SgmVaeParameter("encoder.mid_block.attentions.0.to_q.bias", 4), "encoder.mid.attn_1.q.bias");
  EXPECT_EQ(SgmVaeParameter("encoder.down_blocks.0.downsamplers.0.conv.bias", 4),
            "encoder.down.0.downsample.conv.bias");
  EXPECT_EQ(SgmVaeParameter("encoder.down_blocks.2.resnets.0.conv_shortcut.weight", 4),
            "encoder.down.2.block.0.nin_shortcut.weight");
  EXPECT_EQ(SgmVaeParameter("encoder.down_blocks.3.resnets.1.norm1.bias", 4), "encoder.down.3.block.1.norm1.bias");
}

TEST(SgmNamesTest, SecondEncoderHasOpenClipNames) {
  EXPECT_EQ(OpenClipParameter("text_model.embeddings.position_embedding.weight"), "positional_embedding");
  EXPECT_EQ(OpenClipParameter("text_projection.weight"), "text_projection");
  EXPECT_EQ(OpenClipParameter("text_model.final_layer_norm.bias"), "ln_final.bias");
  EXPECT_EQ(OpenClipParameter("text_model.encoder.layers.31.mlp.fc2.weight"),
            "transformer.resblocks.31.mlp.c_proj.weight");
  EXPECT_EQ(OpenClipParameter("text_model.encoder.layers.0.self_attn.k_proj.bias"),
            "transformer.resblocks.0.attn.in_proj_bias (k)");
  EXPECT_EQ(OpenClipParameter("text_model.encoder.layers.0.unknown.bias"), "");
}

}  // namespace
}  // namespace hotlora
