#include "src/sdxl/text_encoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"
#include "tests/sdxl/model_fixture.h"

namespace hotlora {
namespace {

constexpr char kFolder[] = "text_encoder";

TEST(TextEncoderTest, MatchesTransformers) {
  c10::InferenceMode guard;
  const GoldenFolder golden(kFolder);
  const SdxlModel& model = TinyModel();
  ASSERT_FALSE(golden.Cases("encoders_").empty());
  for (const std::string& name : golden.Cases("encoders_")) {
    SCOPED_TRACE(name);
    TensorMap t = golden.Load(name);
    const TextEncoding first = model.text_encoder().forward(t.at("input_ids"), 0);
    const TextEncoding second = model.text_encoder_2().forward(t.at("input_ids_2"), 0);
    auto compare = [&](const at::Tensor& actual, const std::string& output) {
      ExpectWithin(actual, t.at(output), golden.Tolerance(name, output), output);
    };
    compare(first.hidden, "hidden_state_penultimate");
    compare(second.hidden, "hidden_state_penultimate_2");
    compare(second.pooled, "pooled_2");
    EXPECT_FALSE(first.pooled.defined());
  }
}

// encode_prompt_4 and _5 are the prompts of encoders_0 and encoders_1 with clip_skip 1 and 2.
TEST(TextEncoderTest, ClipSkipTakesAnEarlierLayerButTheSamePooledState) {
  c10::InferenceMode guard;
  const GoldenFolder golden(kFolder);
  const SdxlModel& model = TinyModel();
  struct Case {
    const char *ids, *expected;
    int64_t clip_skip;
  };
  for (const Case& c : {Case{"encoders_0", "encode_prompt_4", 1}, Case{"encoders_1", "encode_prompt_5", 2}}) {
    SCOPED_TRACE(c.expected);
    TensorMap ids = golden.Load(c.ids), expected = golden.Load(c.expected);
    const TextEncoding first = model.text_encoder().forward(ids.at("input_ids"), c.clip_skip);
    const TextEncoding second = model.text_encoder_2().forward(ids.at("input_ids_2"), c.clip_skip);
    ExpectWithin(at::cat({first.hidden, second.hidden}, -1), expected.at("prompt_embeds"),
                 golden.Tolerance(c.expected, "prompt_embeds"), "prompt_embeds");
    ExpectWithin(second.pooled, expected.at("pooled_prompt_embeds"),
                 golden.Tolerance(c.expected, "pooled_prompt_embeds"), "pooled_prompt_embeds");
  }
}

TEST(TextEncoderTest, RowsAreIndependent) {
  c10::InferenceMode guard;
  const GoldenFolder golden(kFolder);
  const TextEncoder& encoder = TinyModel().text_encoder_2();
  const at::Tensor one = golden.Load("encoders_0").at("input_ids_2"), two = golden.Load("encoders_4").at("input_ids_2");
  const TextEncoding both = encoder.forward(at::cat({one, two}), 0);
  ExpectWithin(both.hidden.narrow(0, 1, 1), encoder.forward(two, 0).hidden, 1e-5, "hidden");
  ExpectWithin(both.pooled.narrow(0, 0, 1), encoder.forward(one, 0).pooled, 1e-5, "pooled");
}

TextEncoderConfig SmallConfig(int64_t eos_token_id) {
  TextEncoderConfig config;
  config.vocab_size = 20;
  config.width = 8;
  config.inner_width = 16;
  config.layers = 2;
  config.heads = 2;
  config.positions = 6;
  config.projection = 4;
  config.eos_token_id = eos_token_id;
  config.layer_norm_epsilon = 1e-5;
  return config;
}

// The state at a token does not depend on later ones, so where the pooled state is taken shows in
// what changes it.
TEST(TextEncoderTest, PooledStateIsTakenAtTheFirstEndToken) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const TextEncoder encoder(ParameterScope(parameters), SmallConfig(/*eos_token_id=*/7));
  auto pooled = [&encoder](std::vector<int64_t> ids) {
    return encoder.forward(at::tensor(ids).unsqueeze(0), 0).pooled;
  };
  const at::Tensor reference = pooled({1, 19, 7, 3, 7, 4});
  ExpectWithin(pooled({1, 19, 7, 5, 6, 8}), reference, 1e-6, "tokens after the end");
  EXPECT_GT(RelativeError(pooled({1, 18, 7, 3, 7, 4}), reference), 1e-3) << "tokens before the end count";
}

TEST(TextEncoderTest, EndTokenTwoMeansTheLargestId) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const TextEncoder encoder(ParameterScope(parameters), SmallConfig(/*eos_token_id=*/2));
  auto pooled = [&encoder](std::vector<int64_t> ids) {
    return encoder.forward(at::tensor(ids).unsqueeze(0), 0).pooled;
  };
  const at::Tensor reference = pooled({1, 2, 3, 19, 19, 4});
  ExpectWithin(pooled({1, 2, 3, 19, 2, 5}), reference, 1e-6, "tokens after the largest id");
  EXPECT_GT(RelativeError(pooled({1, 2, 4, 19, 19, 4}), reference), 1e-3);
}

TEST(TextEncoderTest, RefusesWhatWouldReadOutsideItsTables) {
  c10::InferenceMode guard;
  RandomParameters parameters;
  const TextEncoder encoder(ParameterScope(parameters), SmallConfig(2));
  EXPECT_THROW(encoder.forward(at::full({1, 6}, 20, at::kLong), 0), c10::Error);
  EXPECT_THROW(encoder.forward(at::full({1, 6}, -1, at::kLong), 0), c10::Error);
  EXPECT_THROW(encoder.forward(at::ones({1, 7}, at::kLong), 0), c10::Error);
  EXPECT_THROW(encoder.forward(at::ones({1, 6}, at::kLong), 2), c10::Error);
}

TEST(TextEncoderTest, HalfTypesStayCloseToFloat32) {
  c10::InferenceMode guard;
  TensorMap t = GoldenFolder(kFolder).Load("encoders_1");
  for (const auto& [dtype, tolerance] : {std::pair{at::kBFloat16, 0.05}, std::pair{at::kHalf, 0.01}}) {
    const TextEncoding encoding = TinyModel(dtype).text_encoder_2().forward(t.at("input_ids_2"), 0);
    EXPECT_EQ(encoding.pooled.scalar_type(), dtype);
    const std::string name = DtypeName(dtype);
    ExpectError(RelativeError(encoding.hidden, t.at("hidden_state_penultimate_2")), tolerance, name + " hidden");
    ExpectError(RelativeError(encoding.pooled, t.at("pooled_2")), tolerance, name + " pooled");
  }
}

}  // namespace
}  // namespace hotlora
