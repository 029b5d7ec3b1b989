#include "server/openai_mapping.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <gtest/gtest.h>

#include "src/request/validation.h"

namespace hotlora {
namespace {

using openai::v1::CreateImageRequest;

CreateImageRequest Asked() {
  CreateImageRequest request;
  request.set_prompt("a lighthouse");
  return request;
}

CreateImageRequest AskedOf(const std::string& model) {
  CreateImageRequest request = Asked();
  request.set_model(model);
  return request;
}

// "night:0.5+styles/ink": what a model was read as.
std::string Text(const std::vector<AdapterRef>& adapters) {
  return absl::StrJoin(adapters, "+", [](std::string* text, const AdapterRef& adapter) {
    absl::StrAppend(text, adapter.name, adapter.weight.has_value() ? absl::StrCat(":", *adapter.weight) : "");
    EXPECT_FALSE(adapter.text_encoder_weight.has_value());
  });
}

// The error of a request as its caller gets it: from the mapping or, if there is none, from the check that all
// requests go through.
std::string ErrorOf(const CreateImageRequest& message) {
  MappedImageRequest mapped = FromProto(message);
  return std::string(InOpenAiWords(!mapped.violations.empty() ? InvalidRequest(std::move(mapped.violations))
                                                              : ValidateImageRequest(mapped.request, {}).status())
                         .message());
}

TEST(OpenAiMappingTest, ARequestWithAPromptAloneSaysNothingElse) {
  const MappedImageRequest mapped = FromProto(Asked());
  EXPECT_TRUE(mapped.violations.empty());
  const ImageRequest& request = mapped.request;
  EXPECT_EQ(request.prompt, "a lighthouse");
  EXPECT_FALSE(request.negative_prompt.has_value());
  EXPECT_FALSE(request.width.has_value() || request.height.has_value() || request.steps.has_value());
  EXPECT_FALSE(request.guidance_scale.has_value() || request.seed.has_value() || request.num_images.has_value());
  EXPECT_FALSE(request.sampler.has_value() || request.schedule.has_value());
  EXPECT_FALSE(request.format.has_value() || request.quality.has_value());
  EXPECT_FALSE(request.lora_tags.has_value() || request.prompt_syntax.has_value() || request.long_prompts.has_value());
  EXPECT_TRUE(request.adapters.empty());
}

TEST(OpenAiMappingTest, EachFieldBecomesThatOfTheRequest) {
  CreateImageRequest message = AskedOf("night:0.5+styles/ink");
  message.set_n(3);
  message.set_size("1024x768");
  message.set_response_format("b64_json");
  message.set_output_format("webp");
  message.set_output_compression(70);
  message.set_seed(std::numeric_limits<uint64_t>::max());
  message.set_steps(12);
  message.set_guidance_scale(0);
  message.set_negative_prompt("");
  message.set_sampler(v1::SAMPLER_DPMPP_2M);
  message.set_schedule(v1::NOISE_SCHEDULE_KARRAS);
  const MappedImageRequest mapped = FromProto(message);
  EXPECT_TRUE(mapped.violations.empty());
  const ImageRequest& request = mapped.request;
  EXPECT_EQ(Text(request.adapters), "night:0.5+styles/ink");
  EXPECT_EQ(request.num_images, 3u);
  EXPECT_EQ(request.width, 1024u);
  EXPECT_EQ(request.height, 768u);
  EXPECT_EQ(request.format, ImageFormat::kWebp);
  EXPECT_EQ(request.quality, 70u);
  EXPECT_EQ(request.seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(request.steps, 12u);
  EXPECT_EQ(request.guidance_scale, 0.0);
  EXPECT_EQ(request.negative_prompt, "");
  EXPECT_EQ(request.sampler, Sampler::kDpmpp2M);
  EXPECT_EQ(request.schedule, NoiseScheduleKind::kKarras);
}

TEST(OpenAiMappingTest, AModelNamesAdapters) {
  const std::pair<const char*, const char*> cases[] = {
      {"", ""},
      {"sdxl", ""},
      {"sdxl:1", "sdxl:1"},
      {"sdxl+night", "sdxl+night"},
      {"SDXL", "SDXL"},
      {"night", "night"},
      {"night:-0.5", "night:-0.5"},
      {"night:0", "night:0"},
      {"night:1e-1", "night:0.1"},
      {"styles/neon glow (v2)", "styles/neon glow (v2)"},
      {"\u6c34\u5f69:2+night", "\u6c34\u5f69:2+night"},
      {"a%2Bb+100%25:0.5", "a+b+100%:0.5"},
      {"styles%2fneon", "styles/neon"},
      {"a,b", "a,b"},
  };
  for (const auto& [model, adapters] : cases) {
    std::vector<FieldViolation> violations;
    EXPECT_EQ(Text(ReadModel(model, violations)), adapters) << model;
    EXPECT_TRUE(violations.empty()) << model;
  }
}

TEST(OpenAiMappingTest, AModelIsWrittenAsItIsRead) {
  const std::vector<AdapterRef> sets[] = {
      {},
      {{"night", {}, {}}},
      {{"sdxl", {}, {}}},
      {{"sdxl", 0.5, {}}, {"a+b", {}, {}}, {"100%2B", 0.1, {}}, {"styles/\u6c34\u5f69", -1.0 / 3.0, {}}},
      {{"night", 1e20, {}}, {"ink", 1e-20, {}}},
  };
  for (const std::vector<AdapterRef>& adapters : sets) {
    const openai::v1::Model model = ToModel(adapters);
    std::vector<FieldViolation> violations;
    const std::vector<AdapterRef> read = ReadModel(model.id(), violations);
    ASSERT_EQ(read.size(), adapters.size()) << model.id();
    for (size_t i = 0; i < read.size(); ++i) {
      EXPECT_EQ(read[i].name, adapters[i].name);
      EXPECT_EQ(read[i].weight.value_or(1.0), adapters[i].weight.value_or(1.0)) << model.id();
    }
    EXPECT_TRUE(violations.empty());
  }
}

TEST(OpenAiMappingTest, ABadModelIsRefusedWithWhatIsBadInIt) {
  std::vector<std::string> seventeen;
  for (int i = 0; i < 17; ++i) {
    seventeen.push_back(absl::StrCat("style", i));
  }
  const std::pair<std::string, const char*> cases[] = {
      {"night:", "model \"night:\" has a weight that is not a number"},
      {"ink+night:strong", "model \"night:strong\" has a weight that is not a number"},
      {"night:0.5x", "model \"night:0.5x\" has a weight that is not a number"},
      {"night:nan", "model (weight of adapter 1) is nan; allowed are -10 to 10"},
      {"ink+night:inf", "model (weight of adapter 2) is inf; allowed are -10 to 10"},
      {"night:1e999", "model (weight of adapter 1) is inf; allowed are -10 to 10"},
      {"night:10.5", "model (weight of adapter 1) is 10.5; allowed are -10 to 10"},
      {"ink+night+ink:0.5", "model (name of adapter 3) names an adapter that is in the list already"},
      {"night:1:2", "model (name of adapter 1) has \":\", which stands between a name and its weight"},
      {"+", "model (name of adapter 2) has 0 bytes; allowed are 1 to 255"},
      {"night+", "model (name of adapter 2) has 0 bytes; allowed are 1 to 255"},
      {"../secret", "model (name of adapter 1) has a part that begins with \".\", as hidden files do"},
      {"%2e%2e/secret", "model (name of adapter 1) has a part that begins with \".\", as hidden files do"},
      {"a%00b", "model (name of adapter 1) has the control character U+0000"},
      {"a%c3", "model (name of adapter 1) is not valid UTF-8"},
      {"100%", "model \"100%\" has \"%\" without two hexadecimal digits; a \"%\" of a name is written %25"},
      {absl::StrJoin(seventeen, "+"), "model has 17 entries; allowed are at most 16"},
      {std::string(1 << 20, '+'), "model has 1048577 entries; allowed are at most 16"},
      {std::string(256, 'a'), "model (name of adapter 1) has 256 bytes; allowed are 1 to 255"},
  };
  for (const auto& [model, message] : cases) {
    EXPECT_NE(ErrorOf(AskedOf(model)).find(message), std::string::npos) << ErrorOf(AskedOf(model));
  }
}

TEST(OpenAiMappingTest, ASizeIsTwoNumbers) {
  const std::tuple<const char*, uint32_t, uint32_t> good[] = {
      {"", 0, 0}, {"auto", 0, 0}, {"1024x1024", 1024, 1024}, {"16x4096", 16, 4096}, {"0512x64", 512, 64}};
  for (const auto& [size, width, height] : good) {
    CreateImageRequest message = Asked();
    message.set_size(size);
    const MappedImageRequest mapped = FromProto(message);
    EXPECT_EQ(mapped.request.width.value_or(0), width) << size;
    EXPECT_EQ(mapped.request.height.value_or(0), height) << size;
    EXPECT_EQ(ErrorOf(message), "") << size;
  }
  for (const char* size : {"1024", "x", "1024x", "x1024", "1024X1024", "1024*1024", "1024x1024x3", " 64x64", "64 x64",
                           "+64x64", "-64x64", "64.0x64", "0x40x64", "99999999999x64", "nanxnan", "AUTO"}) {
    CreateImageRequest message = Asked();
    message.set_size(size);
    EXPECT_EQ(ErrorOf(message), absl::StrCat("1 bad field: size is \"", size,
                                             "\"; allowed: \"auto\", and WIDTHxHEIGHT, such as \"1024x1024\""));
  }
  CreateImageRequest message = Asked();
  message.set_size("1000x12");
  EXPECT_EQ(ErrorOf(message), "1 bad field: size (height) is 12; allowed are multiples of 8 from 16 to 4096");
  message.set_size("4096x4096");
  EXPECT_EQ(ErrorOf(message), "1 bad field: size (width) times height is 16777216 pixels; allowed are at most 4200000");
}

TEST(OpenAiMappingTest, NumbersOutOfRangeAreRefusedByTheirNamesInThisApi) {
  const auto error = [](void (*set)(CreateImageRequest&)) {
    CreateImageRequest message = Asked();
    set(message);
    return ErrorOf(message);
  };
  EXPECT_EQ(error([](CreateImageRequest& m) { m.set_n(0); }), "1 bad field: n is 0; allowed are 1 to 16");
  EXPECT_EQ(error([](CreateImageRequest& m) { m.set_n(17); }), "1 bad field: n is 17; allowed are 1 to 16");
  EXPECT_EQ(error([](CreateImageRequest& m) { m.set_steps(0); }), "1 bad field: steps is 0; allowed are 1 to 1000");
  EXPECT_EQ(error([](CreateImageRequest& m) { m.set_guidance_scale(std::nan("")); }),
            "1 bad field: guidance_scale is nan; allowed are 0 to 100");
  EXPECT_EQ(error([](CreateImageRequest& m) { m.set_output_compression(101); }),
            "1 bad field: output_compression is 101; allowed are 0 to 100");
  EXPECT_EQ(error([](CreateImageRequest& m) { m.set_sampler(static_cast<v1::Sampler>(99)); }),
            "1 bad field: sampler is 99, which this server does not know");
  EXPECT_EQ(error([](CreateImageRequest& m) { m.set_prompt(std::string(16385, 'a')); }),
            "1 bad field: prompt has 16385 bytes; allowed are at most 16384");
  EXPECT_EQ(error([](CreateImageRequest& m) { m.clear_prompt(); }), "1 bad field: prompt is not set, but required");
  EXPECT_EQ(error([](CreateImageRequest& m) { m.set_prompt(""); }), "");
}

TEST(OpenAiMappingTest, CompressionIsTheQuality) {
  CreateImageRequest message = Asked();
  for (const auto& [compression, quality] : {std::pair<uint32_t, uint32_t>{0, 1}, {1, 1}, {50, 50}, {100, 100}}) {
    message.set_output_compression(compression);
    EXPECT_EQ(FromProto(message).request.quality, quality);
  }
}

TEST(OpenAiMappingTest, FormatsAreThoseOfTheApi) {
  CreateImageRequest message = Asked();
  for (const auto& [name, format] : {std::pair<const char*, ImageFormat>{"png", ImageFormat::kPng},
                                     {"jpeg", ImageFormat::kJpeg},
                                     {"webp", ImageFormat::kWebp}}) {
    message.set_output_format(name);
    EXPECT_EQ(FromProto(message).request.format, format);
  }
  for (const char* name : {"gif", "svg", "raw", "PNG", "jpg"}) {
    message.set_output_format(name);
    EXPECT_EQ(ErrorOf(message),
              absl::StrCat("1 bad field: output_format is \"", name, "\"; allowed: \"png\", \"jpeg\", \"webp\""));
  }
}

TEST(OpenAiMappingTest, WhatChangesNothingIsTakenAndWhatIsNotSupportedIsRefused) {
  CreateImageRequest message = Asked();
  message.set_user("user-1");
  message.set_safety_identifier("user-2");
  message.set_background("auto");
  message.set_quality("standard");
  message.set_style("vivid");
  message.set_moderation("low");
  EXPECT_EQ(ErrorOf(message), "");
  message.set_background("opaque");
  message.set_quality("auto");
  EXPECT_EQ(ErrorOf(message), "");
  message.set_response_format("url");
  message.set_background("transparent");
  message.set_quality("hd");
  message.set_style("natural");
  message.set_stream(true);
  message.set_partial_images(2);
  EXPECT_EQ(ErrorOf(message),
            "6 bad fields: "
            "response_format is \"url\"; allowed: \"b64_json\", since images are in the answer itself; "
            "background is \"transparent\"; allowed: \"auto\", \"opaque\"; "
            "quality is \"hd\"; allowed: \"auto\", \"standard\"; steps says how much work an image is; "
            "style is \"natural\"; allowed: \"vivid\"; the prompt says the style; "
            "stream is true; allowed: false, since there are no partial images; "
            "partial_images is 2; allowed: 0");
  message = Asked();
  message.set_quality(std::string(1000, 'q'));
  EXPECT_LT(ErrorOf(message).size(), 400u);
}

TEST(OpenAiMappingTest, ImagesComeInTheirOrder) {
  openai::v1::CreateImageResponse response;
  for (const uint32_t index : {2u, 0u, 1u}) {
    FinishedImage image;
    image.index = index;
    image.seed = 7 + index;
    image.width = 96;
    image.height = 64;
    image.format = ImageFormat::kJpeg;
    image.data = absl::StrCat("image ", index);
    PutImage(std::move(image), response);
  }
  ASSERT_EQ(response.data_size(), 3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(response.data(i).b64_json(), absl::StrCat("image ", i));
    EXPECT_EQ(response.data(i).seed(), 7u + static_cast<uint64_t>(i));
  }
  EXPECT_EQ(response.size(), "96x64");
  EXPECT_EQ(response.output_format(), "jpeg");
  EXPECT_EQ(response.background(), "opaque");
}

TEST(OpenAiMappingTest, ModelsAreTheBaseModelAndWhatCanBeNamed) {
  std::vector<AdapterInfo> adapters(6);
  adapters[0].name = "100%";
  adapters[1].name = "a+b";
  adapters[2].name = "a\\x0ab";  // a file whose name has a line break
  adapters[3].name = "a:b";
  adapters[4].name = "sdxl";
  adapters[5].name = "styles/\u6c34\u5f69";
  const openai::v1::ListModelsResponse models = ToModels(adapters);
  EXPECT_EQ(models.object(), "list");
  std::vector<std::string> ids;
  for (const openai::v1::Model& model : models.data()) {
    ids.push_back(model.id());
    EXPECT_EQ(model.object(), "model");
    EXPECT_EQ(model.owned_by(), "hotlora");
    EXPECT_TRUE(model.has_created());
  }
  EXPECT_EQ(absl::StrJoin(ids, " "), "sdxl 100%25 a%2Bb sdxl:1 styles/\u6c34\u5f69");
}

}  // namespace
}  // namespace hotlora
