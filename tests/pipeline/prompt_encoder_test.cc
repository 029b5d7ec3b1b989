// Chunks and weights against what the plain path, which has golden outputs of its own, gives for their parts.

#include "src/pipeline/prompt_encoder.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

constexpr double kRounding = 2e-5;

class PromptEncoderTest : public PipelineFixture {
 protected:
  struct Wish {
    bool weighted = false, long_prompts = false;
    std::optional<std::string> negative = std::nullopt;
  };

  ConditioningTensors Encode(const std::string& text, const Wish& wish) {
    ImageRequest request;
    request.prompt = text;
    request.negative_prompt = wish.negative;
    request.prompt_syntax = wish.weighted ? PromptSyntax::kWeighted : PromptSyntax::kPlain;
    request.long_prompts = wish.long_prompts;
    const auto conditioning = pipeline_->Encode(Job(request).prompts, /*negative=*/true, {}, ApplyMode::kMerged);
    EXPECT_TRUE(conditioning.ok()) << conditioning.status();
    return TensorsForTest(**conditioning);
  }
};

std::string Words(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += i % 3 == 0 ? "cat " : i % 3 == 1 ? "red " : "house ";
  }
  return text;
}

TEST_F(PromptEncoderTest, WithoutTheSyntaxBracketsAreText) {
  const auto plain = Encode("a (cat:1.5)", {}), weighted = Encode("a (cat:1.5)", {true});
  EXPECT_GT(RelativeError(plain.hidden, weighted.hidden), 1e-3);
}

TEST_F(PromptEncoderTest, AWeightMultipliesItsTokensHiddenStates) {
  const auto plain = Encode("a cat on grass", {}), weighted = Encode("a (cat:1.5) [on] grass", {true});
  at::Tensor expected = plain.hidden.clone();
  expected.select(1, 2).mul_(1.5);        // begin, a, cat
  expected.select(1, 3).mul_(1.0 / 1.1);  // on
  ExpectWithin(weighted.hidden, expected, kRounding, "hidden");
  EXPECT_TRUE(weighted.pooled.equal(plain.pooled));
}

TEST_F(PromptEncoderTest, LongPromptsGoOnInChunks) {
  const std::string head = Words(75), tail = Words(20);
  const auto cut = Encode(head + tail, {}), whole = Encode(head + tail, {false, true});
  EXPECT_EQ(cut.hidden.size(1), 77);
  ASSERT_EQ(whole.hidden.size(1), 154);
  ExpectWithin(whole.hidden.narrow(1, 0, 77), cut.hidden, kRounding, "first chunk");
  ExpectWithin(whole.hidden.narrow(1, 77, 77), Encode(tail, {}).hidden, kRounding, "second chunk");
  ExpectWithin(whole.pooled, cut.pooled, kRounding, "pooled");
}

TEST_F(PromptEncoderTest, BreakBeginsAChunkAndTheNegativeIsPadded) {
  const auto parts = Encode("a cat BREAK a dog", {false, true, "blurry"});
  ASSERT_EQ(parts.hidden.size(1), 154);
  ASSERT_EQ(parts.negative_hidden.size(1), 154);
  ExpectWithin(parts.hidden.narrow(1, 77, 77), Encode("a dog", {}).hidden, kRounding, "second part");
  ExpectWithin(parts.negative_hidden.narrow(1, 0, 77), Encode("blurry", {}).hidden, kRounding, "negative");
  ExpectWithin(parts.negative_hidden.narrow(1, 77, 77), Encode("", {}).hidden, kRounding, "its empty chunk");
}

TEST_F(PromptEncoderTest, AWeightGoesOnBehindABreak) {
  const auto parts = Encode("(a cat BREAK a dog:1.5)", {true, true}), second = Encode("(a dog:1.5)", {true});
  ASSERT_EQ(parts.hidden.size(1), 154);
  ExpectWithin(parts.hidden.narrow(1, 77, 77), second.hidden, kRounding, "second part");
}

TEST_F(PromptEncoderTest, BreaksMakeEmptyChunksExceptAtTheEnd) {
  const auto parts = Encode("BREAK a cat BREAK", {false, true});
  ASSERT_EQ(parts.hidden.size(1), 154);
  ExpectWithin(parts.hidden.narrow(1, 0, 77), Encode("", {}).hidden, kRounding, "empty first part");
  ExpectWithin(parts.hidden.narrow(1, 77, 77), Encode("a cat", {}).hidden, kRounding, "second part");
}

TEST_F(PromptEncoderTest, TooManyChunksAreRefused) {
  ImageRequest request;
  request.prompt = Words(75 * 16 + 1);
  request.long_prompts = true;
  const auto conditioning = pipeline_->Encode(Job(request).prompts, false, {}, ApplyMode::kMerged);
  EXPECT_EQ(conditioning.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetails(conditioning.status()).reason, "PROMPT_TOO_LONG");
  EXPECT_THAT(std::string(conditioning.status().message()), testing::HasSubstr("17 chunks"));
}

TEST_F(PromptEncoderTest, RowsOfDifferentLengthsShareAPlan) {
  ImageRequest request;
  request.width = request.height = 64;
  request.steps = 2;
  request.long_prompts = true;
  std::vector<std::unique_ptr<Row>> rows;
  std::vector<at::Tensor> alone;
  for (const char* prompt : {"a cat", "a cat BREAK a dog"}) {
    request.prompt = prompt;
    alone.push_back(RowLatentsForTest(*Finish(Start(Job(request), {}, 1))).cpu());
    rows.push_back(Start(Job(request), {}, 1));
  }
  for (int step = 0; step < 2; ++step) {
    ASSERT_TRUE(pipeline_->Step(BatchPlan{{rows[0].get(), rows[1].get()}}).ok());
  }
  ExpectWithin(RowLatentsForTest(*rows[0]), alone[0], 2e-4, "short");
  ExpectWithin(RowLatentsForTest(*rows[1]), alone[1], 2e-4, "long");
  EXPECT_GT(RelativeError(alone[0], alone[1]), 1e-4);
}

}  // namespace
}  // namespace hotlora
