#include "src/adapter_format/key_suffix.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(KeySuffixTest, TakesKeysApart) {
  const std::tuple<const char*, const char*, KeyPart> cases[] = {
      {"lora_unet_x.lora_down.weight", "lora_unet_x", KeyPart::kDown},
      {"lora_unet_x.lora_up.weight", "lora_unet_x", KeyPart::kUp},
      {"lora_unet_x.lora_mid.weight", "lora_unet_x", KeyPart::kMid},
      {"lora_unet_x.alpha", "lora_unet_x", KeyPart::kAlpha},
      {"lora_unet_x.scale", "lora_unet_x", KeyPart::kScale},
      {"unet.x.lora_A.weight", "unet.x", KeyPart::kDown},
      {"unet.x.lora_B.default.weight", "unet.x", KeyPart::kUp},
      {"unet.x.lora_A.my style.weight", "unet.x", KeyPart::kDown},
      {"unet.x.lora_B.lora.bias", "unet.x", KeyPart::kUpBias},
      {"unet.x.lora_magnitude_vector.lora_A", "unet.x", KeyPart::kMagnitudeVector},
      {"unet.x.lora.down.weight", "unet.x", KeyPart::kDown},
      {"unet.x.processor.to_q_lora.up.weight", "unet.x.processor.to_q", KeyPart::kUp},
      {"te.q_proj.lora_linear_layer.down.weight", "te.q_proj", KeyPart::kDown},
      {"lora_unet_x.hada_w1_a", "lora_unet_x", KeyPart::kHadaW1A},
      {"lora_unet_x.hada_t2", "lora_unet_x", KeyPart::kHadaT2},
      {"lora_unet_x.lokr_w1", "lora_unet_x", KeyPart::kLokrW1},
      {"lora_unet_x.lokr_w2_b", "lora_unet_x", KeyPart::kLokrW2B},
      {"lora_unet_x.lokr_t2", "lora_unet_x", KeyPart::kLokrT2},
      {"lora_unet_x.diff", "lora_unet_x", KeyPart::kDiff},
      {"lora_unet_x.diff_b", "lora_unet_x", KeyPart::kDiffBias},
      {"lora_unet_x.w_norm", "lora_unet_x", KeyPart::kDiff},
      {"lora_unet_x.b_norm", "lora_unet_x", KeyPart::kDiffBias},
      {"unet.x.lora_B.bias", "unet.x", KeyPart::kUpBias},
      {"lora_unet_x.a1.weight", "lora_unet_x", KeyPart::kGloraA1},
      {"lora_unet_x.bm.weight", "lora_unet_x", KeyPart::kGloraBm},
      {"oft_unet_x.oft_blocks", "oft_unet_x", KeyPart::kOftBlocks},
      {"lora_unet_x.rescale", "lora_unet_x", KeyPart::kRescale},
      {"unet.x.oft_R.default.weight", "unet.x", KeyPart::kOftR},
      {"lora_unet_x.dora_scale", "lora_unet_x", KeyPart::kDoraScale},
      {"unet.x.lora_magnitude_vector", "unet.x", KeyPart::kMagnitudeVector},
      {"unet.x.lora_magnitude_vector.default.weight", "unet.x", KeyPart::kMagnitudeVector},
  };
  for (const auto& [key, module, part] : cases) {
    const auto split = SplitAdapterKey(key);
    ASSERT_TRUE(split.has_value()) << key;
    EXPECT_EQ(split->module, module);
    EXPECT_EQ(split->part, part) << key;
  }
  for (const char* const key :
       {"unet.x.weight", "lora_A.name.weight", "x.lora_A..weight", "x.lora_A.a.b.weight", "x.lora_A.name.bias",
        "x.lora_A.name", "x.base_layer.weight", "x.lora_up.name.weight"}) {
    EXPECT_FALSE(SplitAdapterKey(key).has_value()) << key;
  }
  EXPECT_FALSE(SplitAdapterKey(".alpha").has_value());
}

TEST(KeySuffixTest, TakesTheNamesOfPeftsAdaptersOut) {
  EXPECT_EQ(SplitAdapterKey("x.lora_A.my style.weight")->adapter, "my style");
  EXPECT_EQ(SplitAdapterKey("x.lora_magnitude_vector.default")->adapter, "default");
  EXPECT_EQ(SplitAdapterKey("x.lora_magnitude_vector.weight")->adapter, "");
  EXPECT_EQ(SplitAdapterKey("x.lora_A.weight")->adapter, "");
}

TEST(KeySuffixTest, NamesFormatsThatAreMissing) {
  EXPECT_EQ(UnsupportedFormatOf("x.on_input"), "IA3");
  EXPECT_EQ(UnsupportedFormatOf("x.ia3_l"), "IA3");
  EXPECT_EQ(UnsupportedFormatOf("x.boft_R"), "BOFT");
  EXPECT_EQ(UnsupportedFormatOf("x.oft_r"), "OFT of early PEFT");
  EXPECT_EQ(UnsupportedFormatOf("x.oft_diag"), "OFT of early LyCORIS");
  EXPECT_EQ(UnsupportedFormatOf("x.lora_A.bias"), "a bias inside LoRA");
  EXPECT_EQ(UnsupportedFormatOf("x.lora_A.name.bias"), "a bias inside LoRA");
  // https://github.com/invoke-ai/InvokeAI/pull/9517
  EXPECT_EQ(UnsupportedFormatOf("x.magnitude"), "DoRA of ai-toolkit, whose files do not say their alpha");
  for (const char* key : {"x.lora_B.weight", "x.hada_w1_a", "x.lokr_w2", "x.diff", "x.dora_scale", "x.oft_blocks",
                          "x.a1.weight", "x.w_norm", "x.diff_b", "x.lora_B.bias"}) {
    EXPECT_EQ(UnsupportedFormatOf(key), "") << key;
  }
}

}  // namespace
}  // namespace hotlora
