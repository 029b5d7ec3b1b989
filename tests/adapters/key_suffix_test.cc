#include "src/adapters/key_suffix.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

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
      {"unet.x.lora.down.weight", "unet.x", KeyPart::kDown},
      {"unet.x.processor.to_q_lora.up.weight", "unet.x.processor.to_q", KeyPart::kUp},
      {"te.q_proj.lora_linear_layer.down.weight", "te.q_proj", KeyPart::kDown},
  };
  for (const auto& [key, module, part] : cases) {
    const auto split = SplitAdapterKey(key);
    ASSERT_TRUE(split.has_value()) << key;
    EXPECT_EQ(split->module, module);
    EXPECT_EQ(split->part, part) << key;
  }
  EXPECT_FALSE(SplitAdapterKey("unet.x.weight").has_value());
  EXPECT_FALSE(SplitAdapterKey(".alpha").has_value());
}

TEST(KeySuffixTest, NamesFormatsThatAreMissing) {
  EXPECT_EQ(UnsupportedFormatOf("x.hada_w1_a"), "LoHa");
  EXPECT_EQ(UnsupportedFormatOf("x.lokr_w2"), "LoKr");
  EXPECT_EQ(UnsupportedFormatOf("x.dora_scale"), "DoRA");
  EXPECT_EQ(UnsupportedFormatOf("x.lora_magnitude_vector"), "DoRA");
  EXPECT_EQ(UnsupportedFormatOf("x.lora_B.bias"), "bias deltas");
  EXPECT_EQ(UnsupportedFormatOf("x.oft_blocks"), "OFT");
  EXPECT_EQ(UnsupportedFormatOf("x.diff_b"), "full difference");
  EXPECT_EQ(UnsupportedFormatOf("x.lora_B.weight"), "");
}

TEST(KeySuffixTest, SampleNamesEightPrintablyThenCounts) {
  NameSample sample;
  for (int i = 0; i < 11; ++i) {
    sample.Add(absl::StrCat("key\n", i));
  }
  EXPECT_EQ(sample.count(), 11u);
  EXPECT_THAT(sample.ToString(), testing::StartsWith("\"key\\n0\", "));
  EXPECT_THAT(sample.ToString(), testing::HasSubstr("\"key\\n7\" and 3 more"));
  EXPECT_LT(PrintableName(std::string(1'000'000, 'x')).size(), 200u);
}

}  // namespace
}  // namespace hotlora
