// Golden conditioning of diffusers' encode_prompt: both encoders joined, the three kinds of negative prompt, clip skip.

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

class EncodeGoldenTest : public PipelineFixture {};

Prompts MakePrompts(const nlohmann::json& arguments) {
  ImageRequest request;
  const auto text = [&arguments](const char* name) -> std::optional<std::string> {
    return arguments.contains(name) ? std::optional<std::string>(arguments[name].get<std::string>()) : std::nullopt;
  };
  request.prompt = arguments.at("prompt");
  request.prompt_2 = text("prompt_2");
  request.negative_prompt = text("negative_prompt");
  request.negative_prompt_2 = text("negative_prompt_2");
  request.clip_skip = arguments.value("clip_skip", 0u);
  return ValidateImageRequest(request, RequestLimits{.native_size = 128, .max_clip_skip = 2})->prompts;
}

TEST_F(EncodeGoldenTest, ConditioningEqualsTheReference) {
  std::ifstream stream(GoldenPath("text_encoder/manifest.json"));
  const nlohmann::json manifest = nlohmann::json::parse(stream);
  int compared = 0;
  for (const nlohmann::json& golden : manifest.at("cases")) {
    // Cases of lists of prompts are batches, which are made of rows here.
    if (!golden.contains("arguments") || !golden["arguments"].at("prompt").is_string()) {
      continue;
    }
    const std::string name = golden.at("name");
    const auto conditioning =
        pipeline_->Encode(MakePrompts(golden["arguments"]), /*negative=*/true, {}, ApplyMode::kMerged);
    ASSERT_TRUE(conditioning.ok()) << conditioning.status();
    const ConditioningTensors actual = TensorsOf(**conditioning);
    const TensorMap expected = LoadTensors(GoldenPath("text_encoder/" + golden.at("file").get<std::string>()));
    const auto expect = [&](const at::Tensor& tensor, const char* output) {
      ExpectWithin(tensor, expected.at(output), golden.at("tolerance").at(output).at("absolute"), name + " " + output);
    };
    expect(actual.hidden, "prompt_embeds");
    expect(actual.pooled, "pooled_prompt_embeds");
    expect(actual.negative_hidden, "negative_prompt_embeds");
    expect(actual.negative_pooled, "negative_pooled_prompt_embeds");
    ++compared;
  }
  EXPECT_EQ(compared, 6);
}

}  // namespace
}  // namespace hotlora
