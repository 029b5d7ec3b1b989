// Prompts with textual-inversion embeddings against diffusers' load_textual_inversion and encode_prompt.

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/adapters/embedding_store.h"
#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

class TextualInversionTest : public PipelineFixture {
 protected:
  void SetUp() override {
    PipelineFixture::SetUp();
    const SdxlConfig& config = model_->config();
    auto store = EmbeddingStore::Create(
        {GoldenPath("textual_inversion"), false, {config.text_encoder.width, config.text_encoder_2.width}});
    ASSERT_TRUE(store.ok()) << store.status();
    embeddings_ = *std::move(store);
  }

  // The request's prompts, with these embeddings by name and token.
  Prompts With(const ImageRequest& request, const std::map<std::string, std::string>& tokens) {
    Prompts prompts = Job(request).prompts;
    for (const auto& [name, token] : tokens) {
      const auto embedding = embeddings_->Read(name);
      EXPECT_TRUE(embedding.ok()) << embedding.status();
      prompts.embeddings.push_back({token, embedding->vectors});
    }
    return prompts;
  }

  ConditioningTensors Encode(const Prompts& prompts) {
    const auto conditioning = pipeline_->Encode(prompts, /*negative=*/true, {}, ApplyMode::kMerged);
    EXPECT_TRUE(conditioning.ok()) << conditioning.status();
    return TensorsForTest(**conditioning);
  }

  std::unique_ptr<EmbeddingStore> embeddings_;
};

TEST_F(TextualInversionTest, ConditioningEqualsTheReference) {
  std::ifstream stream(GoldenPath("textual_inversion/manifest.json"));
  const nlohmann::json manifest = nlohmann::json::parse(stream);
  const double tolerance = manifest["tolerance"]["absolute"];
  ASSERT_EQ(manifest["cases"].size(), 7u);
  for (const nlohmann::json& golden : manifest["cases"]) {
    SCOPED_TRACE(golden.dump());
    ImageRequest request;
    const auto text = [&golden](const char* name) -> std::optional<std::string> {
      return golden.contains(name) ? std::optional<std::string>(golden[name].get<std::string>()) : std::nullopt;
    };
    request.prompt = golden["prompt"];
    request.prompt_2 = text("prompt_2");
    request.negative_prompt = text("negative_prompt");
    request.negative_prompt_2 = text("negative_prompt_2");
    request.clip_skip = golden.value("clip_skip", 0u);
    const ConditioningTensors actual = Encode(With(request, golden["embeddings"]));
    const TensorMap expected = LoadTensors(GoldenPath("textual_inversion/" + golden["file"].get<std::string>()));
    ExpectWithin(actual.hidden, expected.at("prompt_embeds"), tolerance, "hidden");
    ExpectWithin(actual.pooled, expected.at("pooled_prompt_embeds"), tolerance, "pooled");
    ExpectWithin(actual.negative_hidden, expected.at("negative_prompt_embeds"), tolerance, "negative hidden");
    ExpectWithin(actual.negative_pooled, expected.at("negative_pooled_prompt_embeds"), tolerance, "negative pooled");
  }
}

TEST_F(TextualInversionTest, NothingIsLeftBehind) {
  ImageRequest request;
  request.prompt = "a photo of ink";
  const at::Tensor before = Encode(With(request, {})).hidden;
  const at::Tensor with = Encode(With(request, {{"multi", "ink"}})).hidden;
  EXPECT_GT(RelativeError(with, before), 1e-3);
  EXPECT_TRUE(Encode(With(request, {})).hidden.equal(before));
}

TEST_F(TextualInversionTest, VectorsTakeTheWeightOfTheirPlace) {
  ImageRequest request;
  request.prompt = "a <s0> cat";
  const at::Tensor plain = Encode(With(request, {{"single", "<s0>"}})).hidden;
  request.prompt_syntax = PromptSyntax::kWeighted;
  request.prompt = "a (<s0>:1.5) cat";
  at::Tensor expected = plain.clone();
  expected.select(1, 2).mul_(1.5);
  ExpectWithin(Encode(With(request, {{"single", "<s0>"}})).hidden, expected, 2e-5, "weighted");
}

// Three vectors behind 73 tokens: the two places left are not used.
TEST_F(TextualInversionTest, LongPromptsKeepVectorsTogether) {
  ImageRequest request;
  std::string words;
  for (int i = 0; i < 73; ++i) {
    words += "cat ";
  }
  request.long_prompts = true;
  request.prompt = words + "ink red";
  const at::Tensor joined = Encode(With(request, {{"multi", "ink"}})).hidden;
  ASSERT_EQ(joined.size(1), 154);
  request.prompt = words + "BREAK ink red";
  ExpectWithin(joined, Encode(With(request, {{"multi", "ink"}})).hidden, 2e-5, "as after BREAK");
}

}  // namespace
}  // namespace hotlora
