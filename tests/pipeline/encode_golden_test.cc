// Golden conditioning of diffusers' encode_prompt: both encoders joined, the three kinds of negative prompt, clip skip.

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

class EncodeGoldenTest : public PipelineFixture {};

// Of a list of prompts the one at `index`; elsewhere the prompt.
Prompts MakePrompts(const nlohmann::json& arguments, size_t index) {
  ImageRequest request;
  const auto text = [&](const char* name) -> std::optional<std::string> {
    if (!arguments.contains(name)) {
      return std::nullopt;
    }
    const nlohmann::json& value = arguments[name];
    return (value.is_array() ? value.at(index) : value).get<std::string>();
  };
  request.prompt = text("prompt").value();
  request.prompt_2 = text("prompt_2");
  request.negative_prompt = text("negative_prompt");
  request.negative_prompt_2 = text("negative_prompt_2");
  request.clip_skip = arguments.value("clip_skip", 0u);
  return ValidateImageRequest(request, RequestLimits{.native_size = 128, .max_clip_skip = 2})->prompts;
}

// Where the reference has a batch, of several prompts with several images each, every row is compared.
TEST_F(EncodeGoldenTest, ConditioningEqualsTheReference) {
  std::ifstream stream(GoldenPath("text_encoder/manifest.json"));
  const nlohmann::json manifest = nlohmann::json::parse(stream);
  int compared = 0;
  for (const nlohmann::json& golden : manifest.at("cases")) {
    if (!golden.contains("arguments")) {
      continue;
    }
    const std::string name = golden.at("name");
    const nlohmann::json& arguments = golden["arguments"];
    const TensorMap expected = LoadTensors(GoldenPath("text_encoder/" + golden.at("file").get<std::string>()));
    const int64_t rows = expected.at("prompt_embeds").size(0), images = arguments.value("num_images_per_prompt", 1);
    for (int64_t row = 0; row < rows; ++row) {
      const Prompts prompts = MakePrompts(arguments, static_cast<size_t>(row / images));
      const auto conditioning = pipeline_->Encode(prompts, /*negative=*/true, {}, ApplyMode::kMerged);
      ASSERT_TRUE(conditioning.ok()) << conditioning.status();
      const ConditioningTensors actual = TensorsForTest(**conditioning);
      const auto expect = [&](const at::Tensor& tensor, const char* output) {
        ExpectWithin(tensor, expected.at(output).narrow(0, row, 1), golden.at("tolerance").at(output).at("absolute"),
                     name + " " + output);
      };
      expect(actual.hidden, "prompt_embeds");
      expect(actual.pooled, "pooled_prompt_embeds");
      expect(actual.negative_hidden, "negative_prompt_embeds");
      expect(actual.negative_pooled, "negative_pooled_prompt_embeds");
      ++compared;
    }
  }
  EXPECT_EQ(compared, 6 + 4);
}

}  // namespace
}  // namespace hotlora
