#include "src/sdxl/image_prompt.h"

#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/image/image_decoder.h"
#include "src/image/resize.h"
#include "tests/golden_controlnets.h"
#include "tests/sdxl/model_fixture.h"

namespace hotlora {
namespace {

constexpr char kFolder[] = "image_prompt";

class ImagePromptTest : public testing::Test {
 protected:
  static std::shared_ptr<const PlacedImagePrompt> Load(const std::string& kind, c10::ScalarType dtype = at::kFloat) {
    auto loaded =
        LoadImagePrompt(GoldenPath("image_prompt/" + kind + ".safetensors"), TinyModel().config(), TestPlace(dtype));
    TORCH_CHECK(loaded.ok(), loaded.status().ToString());
    return *std::move(loaded);
  }

  static std::shared_ptr<const PlacedImageEncoder> LoadEncoder(c10::ScalarType dtype = at::kFloat) {
    auto loaded = LoadImageEncoder(GoldenPath("image_prompt/image_encoder"), TestPlace(dtype));
    TORCH_CHECK(loaded.ok(), loaded.status().ToString());
    return *std::move(loaded);
  }

  // A golden picture as the encoder takes it.
  static at::Tensor PixelsOf(const ImageEncoder& encoder, const std::string& name) {
    const auto decoded = DecodeImage(GoldenFile("image_prompt/" + name + ".png"));
    TORCH_CHECK(decoded.ok(), decoded.status().ToString());
    RgbImage square = CoverSquare(*decoded, encoder.config().square());
    const int64_t size = square.width;
    const at::Tensor bytes = at::from_blob(square.pixels.data(), {1, size, size, 3}, at::kByte);
    return encoder.Normalize(bytes.to(TestPlace().device));
  }
};

TEST_F(ImagePromptTest, EncodingsEqualTransformersAndDiffusers) {
  c10::InferenceMode guard;
  const GoldenFolder golden(kFolder);
  const auto encoder = LoadEncoder();
  const auto standard = Load("standard"), plus = Load("plus");
  ASSERT_EQ(golden.Cases("encode_").size(), 3u);
  for (const std::string& name : golden.Cases("encode_")) {
    const TensorMap t = golden.Load(name);
    const auto compare = [&](const at::Tensor& actual, const std::string& output) {
      ExpectWithin(actual, t.at(output), golden.Tolerance(name, output), name + " " + output);
    };
    const ImageEncoder& network = encoder->network;
    const at::Tensor pixels = PixelsOf(network, name.substr(7));  // "encode_red"
    compare(pixels, "pixel_values");
    const EncodedPictures seen = network.Encode(pixels), zeros = network.Encode(at::zeros_like(pixels));
    compare(seen.embeddings, "image_embeds");
    compare(seen.hidden, "hidden_state_penultimate");
    compare(zeros.hidden, "hidden_state_penultimate_of_zeros");
    compare(standard->network.TokensOf(seen), "tokens_standard");
    compare(standard->network.TokensOfNone({}, 1), "tokens_standard_negative");
    compare(plus->network.TokensOf(seen), "tokens_plus");
    compare(plus->network.TokensOfNone(zeros, 1), "tokens_plus_negative");
  }
}

TEST_F(ImagePromptTest, ACallOfTheUnetEqualsDiffusers) {
  c10::InferenceMode guard;
  const GoldenFolder golden(kFolder);
  const auto encoder = LoadEncoder();
  for (const auto& [kind, scale] : {std::pair("standard", 0.6), {"plus", 1.0}}) {
    const std::string name = std::string("unet_call_") + kind;
    const TensorMap t = golden.Load(name);
    const auto loaded = Load(kind);
    const ImagePrompt& prompt = loaded->network;
    const at::Tensor pixels = PixelsOf(encoder->network, "red");
    const at::Tensor none = prompt.TokensOfNone(encoder->network.Encode(at::zeros_like(pixels)), 1);
    const at::Tensor tokens = at::cat({none, prompt.TokensOf(encoder->network.Encode(pixels))});
    ExpectWithin(tokens, t.at("image_tokens"), golden.Tolerance(name, "image_tokens"), name + " image_tokens");
    UnetInput input = GoldenUnetInput(t);
    const std::vector<at::Tensor> projected = prompt.ProjectTokens(tokens);
    AddImagePrompt(0, projected, std::vector<double>(projected.size(), scale), input.image);
    ExpectWithin(TinyModel().unet().forward(input), t.at("output"), golden.Tolerance(name, "output"), name);
  }
}

// Two image prompts in different rows, and a row that has none.
TEST_F(ImagePromptTest, RowsOfABatchAreAsIfAlone) {
  c10::InferenceMode guard;
  const auto encoder = LoadEncoder();
  const auto standard = Load("standard"), plus = Load("plus");
  UnetInput together = DoubledInput(GoldenUnetInput(GoldenFolder(kFolder).Load("unet_call_plus")));
  const UnetInput base = together;
  const at::Tensor pixels = PixelsOf(encoder->network, "blue");
  const auto add = [&](const ImagePrompt& prompt, int64_t first, UnetInput& input) {
    const std::vector<at::Tensor> projected = prompt.ProjectTokens(prompt.TokensOf(encoder->network.Encode(pixels)));
    AddImagePrompt(first, projected, std::vector<double>(projected.size(), 0.8), input.image);
  };
  const auto alone = [&](int64_t row, const PlacedImagePrompt* first, const PlacedImagePrompt* second) {
    UnetInput input = RowsOfInput(base, row, 1);
    for (const PlacedImagePrompt* const prompt : {first, second}) {
      if (prompt != nullptr) {
        add(prompt->network, 0, input);
      }
    }
    return TinyModel().unet().forward(input);
  };
  const at::Tensor expected[] = {alone(0, nullptr, nullptr), alone(1, standard.get(), nullptr),
                                 alone(2, plus.get(), nullptr), alone(3, standard.get(), plus.get())};
  const at::Tensor without = alone(1, nullptr, nullptr);
  add(standard->network, 1, together);
  add(plus->network, 2, together);
  add(standard->network, 3, together);
  add(plus->network, 3, together);
  const at::Tensor output = TinyModel().unet().forward(together);
  for (int64_t row = 0; row < 4; ++row) {
    ExpectWithin(output.narrow(0, row, 1), expected[row], 2e-5, "row " + std::to_string(row));
  }
  EXPECT_GT(RelativeError(expected[1], without), 0.01) << "image prompts do nothing";
}

TEST_F(ImagePromptTest, AScaleOf0LeavesNoTrace) {
  c10::InferenceMode guard;
  const auto encoder = LoadEncoder();
  const auto loaded = Load("standard");
  UnetInput input = GoldenUnetInput(GoldenFolder(kFolder).Load("unet_call_standard"));
  const at::Tensor plain = TinyModel().unet().forward(input);
  const std::vector<at::Tensor> projected = loaded->network.ProjectTokens(loaded->network.TokensOfNone({}, 2));
  EXPECT_EQ(projected.front().size(1), 8);
  AddImagePrompt(0, projected, std::vector<double>(projected.size(), 0.0), input.image);
  EXPECT_TRUE(at::equal(TinyModel().unet().forward(input), plain));
  input.image.pop_back();
  EXPECT_THROW(TinyModel().unet().forward(input), c10::Error);
  input.image.resize(projected.size() + 1);
  EXPECT_THROW(TinyModel().unet().forward(input), c10::Error);
}

TEST_F(ImagePromptTest, FilesNumberCrossAttentionsWithTheMiddleLast) {
  std::ifstream stream(GoldenPath("image_prompt/manifest.json"));
  const nlohmann::json layers = nlohmann::json::parse(stream).at("layers");
  const std::vector<CrossAttentionPlace> places = CrossAttentions(TinyModel().config());
  ASSERT_EQ(places.size(), layers.size());
  for (const CrossAttentionPlace& place : places) {
    EXPECT_EQ(layers.at("ip_adapter." + std::to_string(place.number)), place.path);
  }
}

TEST_F(ImagePromptTest, HalfTypesStayCloseToFloat32) {
  c10::InferenceMode guard;
  const TensorMap t = GoldenFolder(kFolder).Load("encode_red");
  for (const auto& [dtype, tolerance] : {std::pair{at::kBFloat16, 0.05}, std::pair{at::kHalf, 0.01}}) {
    const auto encoder = LoadEncoder(dtype);
    const at::Tensor pixels = PixelsOf(encoder->network, "red");
    for (const char* const kind : {"standard", "plus"}) {
      const at::Tensor tokens = Load(kind, dtype)->network.TokensOf(encoder->network.Encode(pixels));
      EXPECT_EQ(tokens.scalar_type(), dtype);
      ExpectError(RelativeError(tokens, t.at(std::string("tokens_") + kind)), tolerance, DtypeName(dtype) + kind);
    }
  }
}

}  // namespace
}  // namespace hotlora
