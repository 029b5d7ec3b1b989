#include "src/adapter_format/adapter_metadata.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(AdapterMetadataTest, ReadsWhatKohyaWrites) {
  const AdapterMetadata metadata = ReadAdapterMetadata(
      {{"ss_base_model_version", "sdxl_base_v1-0"},
       {"ss_sd_model_name", "sd_xl_base_1.0.safetensors"},
       {"ss_output_name", "neon"},
       {"modelspec.title", "Neon nights"},
       {"modelspec.architecture", "stable-diffusion-xl-v1-base/lora"},
       {"modelspec.trigger_phrase", "neonstyle"},
       {"modelspec.tags", "ignored, here"},
       {"ss_tag_frequency", R"({"10_a": {"night": 3, " city ": 1, "rain": 2}, "5_b": {"city": 4}})"}},
      "");
  EXPECT_EQ(metadata.architecture, "sdxl_base_v1-0");
  EXPECT_EQ(metadata.base_model, "sd_xl_base_1.0.safetensors");
  EXPECT_EQ(metadata.title, "Neon nights");
  EXPECT_EQ(metadata.trigger_phrase, "neonstyle");
  EXPECT_THAT(metadata.tags, ElementsAre("city", "night", "rain"));
}

TEST(AdapterMetadataTest, TakesTheNextBestSource) {
  const AdapterMetadata metadata = ReadAdapterMetadata({{"modelspec.architecture", "stable-diffusion-xl-v1-base/lora"},
                                                        {"ss_output_name", "neon"},
                                                        {"modelspec.tags", "b, a,, b"}},
                                                       R"({"base_model_name_or_path": "stabilityai/sdxl"})");
  EXPECT_EQ(metadata.architecture, "stable-diffusion-xl-v1-base/lora");
  EXPECT_EQ(metadata.base_model, "stabilityai/sdxl");
  EXPECT_EQ(metadata.title, "neon");
  EXPECT_THAT(metadata.tags, ElementsAre("b", "a", "b"));
}

TEST(AdapterMetadataTest, WhatCannotBeReadSaysNothing) {
  for (const char* const tags : {"", "{", "[1]", "7", R"({"a": 1})", R"({"a": {"b": "many"}})", R"({"a": {"": 1}})"}) {
    EXPECT_THAT(ReadAdapterMetadata({{"ss_tag_frequency", tags}}, "{").tags, IsEmpty()) << tags;
  }
  EXPECT_EQ(ReadAdapterMetadata({}, R"({"base_model_name_or_path": 7})").base_model, "");
  EXPECT_EQ(ReadAdapterMetadata({{"ss_sd_model_name", "None"}}, "").base_model, "");
}

std::string Nested(const std::string& open, const std::string& close) {
  std::string text;
  for (int i = 0; i < 1'000'000; ++i) {
    text += open;
  }
  text += "1";
  for (int i = 0; i < 1'000'000; ++i) {
    text += close;
  }
  return text;
}

// Deep JSON says nothing, and costs no stack.
TEST(AdapterMetadataTest, DeepNestingSaysNothing) {
  for (const std::string& deep : {Nested("{\"a\":", "}"), "{\"a\":" + Nested("[", "]") + "}"}) {
    const AdapterMetadata metadata = ReadAdapterMetadata({{"ss_tag_frequency", deep}}, deep);
    EXPECT_THAT(metadata.tags, IsEmpty());
    EXPECT_EQ(metadata.base_model, "");
  }
}

TEST(AdapterMetadataTest, CutsBetweenCharacters) {
  std::string text(511, 'x');
  text += "\xC3\xA9";  // é
  EXPECT_EQ(ReadAdapterMetadata({{"modelspec.title", text}}, "").title, std::string(511, 'x'));
  std::string tags = "{\"a\": {";
  for (int i = 0; i < 100; ++i) {
    tags += "\"t" + std::to_string(i) + "\": 1, ";
  }
  EXPECT_EQ(ReadAdapterMetadata({{"ss_tag_frequency", tags + "\"z\": 0}}"}}, "").tags.size(),
            AdapterMetadata::kMaxTags);
}

TEST(AdapterMetadataTest, NamesOtherModels) {
  EXPECT_EQ(ForeignModelOfHeader({{"ss_base_model_version", "sd_v1"}}),
            "Stable Diffusion 1 (ss_base_model_version \"sd_v1\")");
  EXPECT_EQ(ForeignModelOfHeader({{"ss_base_model_version", "flux1"}}), "Flux (ss_base_model_version \"flux1\")");
  EXPECT_EQ(ForeignModelOfHeader({{"modelspec.architecture", "Flux-1-dev/lora"}}),
            "Flux (modelspec.architecture \"Flux-1-dev/lora\")");
  EXPECT_EQ(ForeignModelOfHeader({{"modelspec.architecture", "stable-diffusion-3-medium/lora"}}),
            "Stable Diffusion 3 (modelspec.architecture \"stable-diffusion-3-medium/lora\")");
  for (const char* const ours : {"sdxl_base_v1-0", "sdxl_base_v0-9", "sdxl", "stable-diffusion-xl-v1-base/lora", ""}) {
    EXPECT_EQ(ForeignModelOfHeader({{"ss_base_model_version", ours}, {"modelspec.architecture", ours}}), "") << ours;
  }
  EXPECT_EQ(ForeignModelOfHeader({}), "");
}

}  // namespace
}  // namespace hotlora
