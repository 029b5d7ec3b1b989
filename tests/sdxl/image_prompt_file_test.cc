// Image prompts and image encoders on disk: what cannot be used is refused by name.

#include "src/sdxl/image_prompt_file.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/golden_controlnets.h"
#include "tests/sdxl/model_fixture.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using testing::HasSubstr;

class ImagePromptFileTest : public testing::Test {
 protected:
  static TensorMap Golden(const std::string& kind) {
    return LoadTensors(GoldenPath("image_prompt/" + kind + ".safetensors"));
  }

  // The status of loading these tensors as an image prompt.
  absl::Status Load(const TensorMap& tensors, c10::ScalarType dtype = at::kFloat) {
    const std::string path = folder_.Under("prompt_" + std::to_string(files_++) + ".safetensors");
    WriteTensors(tensors, path);
    return LoadImagePrompt(path, TinyModel().config(), TestPlace(dtype)).status();
  }

  // The refusal of a golden image prompt after a change.
  std::string Refusal(const std::string& kind, const std::function<void(TensorMap&)>& change,
                      c10::ScalarType dtype = at::kFloat) {
    TensorMap tensors = Golden(kind);
    change(tensors);
    const absl::Status status = Load(tensors, dtype);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return std::string(status.message());
  }

  // The refusal of the golden image encoder with `key` of a config changed.
  std::string EncoderRefusal(const std::string& file, const std::string& key, const nlohmann::json& value) {
    const std::string folder = folder_.Under("encoder_" + std::to_string(files_++));
    std::filesystem::copy(GoldenPath("image_prompt/image_encoder"), folder);
    std::ifstream stream(folder + "/" + file);
    nlohmann::json config = nlohmann::json::parse(stream);
    config[key] = value;
    std::ofstream(folder + "/" + file) << config;
    const absl::Status status = LoadImageEncoder(folder, TestPlace()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return std::string(status.message());
  }

  TemporaryFolder folder_;
  int files_ = 0;
};

TEST_F(ImagePromptFileTest, TensorsTellTheConfig) {
  EXPECT_TRUE(Load(Golden("standard")).ok());
  const auto plus = LoadImagePrompt(GoldenPath("image_prompt/plus.safetensors"), TinyModel().config(), TestPlace());
  ASSERT_TRUE(plus.ok()) << plus.status();
  const ImagePromptConfig& config = (*plus)->network.config();
  EXPECT_EQ(config.kind, ImagePromptConfig::Kind::kPlus);
  EXPECT_EQ(config.tokens, 6);
  EXPECT_EQ(config.width, 24);
  EXPECT_EQ(config.query_width, 64);
  EXPECT_EQ(config.inner_width, 96);
  EXPECT_EQ(config.layers, 4);
  int64_t bytes = 0;
  for (const auto& [name, tensor] : Golden("plus")) {
    bytes += tensor.numel() * static_cast<int64_t>(sizeof(float));
  }
  EXPECT_GE((*plus)->layout.bytes, bytes);  // each parameter begins at a multiple of 64 bytes
  EXPECT_LT((*plus)->layout.bytes, bytes + 64 * static_cast<int64_t>(Golden("plus").size()));
}

TEST_F(ImagePromptFileTest, NamesEachTensorThatDoesNotFit) {
  const std::string message = Refusal("plus", [](TensorMap& t) {
    t.erase("ip_adapter.31.to_k_ip.weight");
    t["ip_adapter.2.to_k_ip.weight"] = at::zeros({32, 24});
    t["ip_adapter.1.to_v_ip.weight"] = at::zeros({64, 24});
    t["image_proj.layers.1.0.to_out.weight"] = at::zeros({24, 24});
  });
  for (const char* const part : {"missing 1: ip_adapter.31.to_k_ip.weight", "surplus 1: ip_adapter.2.to_k_ip.weight",
                                 "ip_adapter.1.to_v_ip.weight is [64, 24], expected [32, 24]",
                                 "image_proj.layers.1.0.to_out.weight is [24, 24], expected [24, 64]"}) {
    EXPECT_THAT(message, HasSubstr(part));
  }
}

TEST_F(ImagePromptFileTest, RefusesOtherKindsOfFilesByName) {
  const auto message = [this](const TensorMap& tensors) { return std::string(Load(tensors).message()); };
  const at::Tensor any = at::zeros({2});
  EXPECT_THAT(message({{"lora_unet_x.lora_down.weight", any}}), HasSubstr("not an IP-Adapter"));
  EXPECT_THAT(message(GoldenControlNet("depth")), HasSubstr("not an IP-Adapter"));
  EXPECT_THAT(message({{"image_proj.proj.0.weight", any}}), HasSubstr("full face, or FaceID"));
}

TEST_F(ImagePromptFileTest, RefusesAnotherModelsImagePrompt) {
  const std::string message = Refusal("standard", [](TensorMap& t) {  // of SD 1.5: 768 wide
    t["image_proj.norm.weight"] = at::zeros({768});
    t["image_proj.norm.bias"] = at::zeros({768});
    t["image_proj.proj.weight"] = at::zeros({3072, 20});
    t["image_proj.proj.bias"] = at::zeros({3072});
  });
  EXPECT_THAT(message, HasSubstr("its tokens are 768 wide, the model's cross_attention_dim is 24"));
}

TEST_F(ImagePromptFileTest, RefusesShapesThatMakeNoSense) {
  EXPECT_THAT(Refusal("plus",
                      [](TensorMap& t) {
                        t["image_proj.layers.0.0.to_q.weight"] = at::zeros({60, 24});
                      }),
              HasSubstr("no heads of 64"));
  EXPECT_THAT(Refusal("plus", [](TensorMap& t) { t["image_proj.latents"] = at::zeros({}); }), HasSubstr("resampler"));
  EXPECT_THAT(Refusal("plus",
                      [](TensorMap& t) {
                        t["image_proj.latents"] = at::zeros({1, 1025, 24});
                      }),
              HasSubstr("1025 tokens"));
  EXPECT_THAT(Refusal("standard",
                      [](TensorMap& t) {
                        t["image_proj.proj.weight"] = at::zeros({95, 20});
                      }),
              HasSubstr("0 tokens"));
}

TEST_F(ImagePromptFileTest, RefusesValuesThatAreNotFinite) {
  for (const double value : {std::nan(""), HUGE_VAL}) {
    EXPECT_THAT(
        Refusal("standard", [value](TensorMap& t) { t["image_proj.norm.bias"] = at::full({24}, value, at::kHalf); }),
        HasSubstr("not finite in Float 1: image_proj.norm.bias"));
  }
  EXPECT_THAT(
      Refusal(
          "standard", [](TensorMap& t) { t["image_proj.norm.bias"] = at::full({24}, 1e6, at::kFloat); }, at::kHalf),
      HasSubstr("not finite in Half 1"));
}

TEST_F(ImagePromptFileTest, RefusesFilesThatAreNotSound) {
  const std::string path = folder_.Under("cut.safetensors");
  WriteTensors(Golden("standard"), path);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 10);
  const absl::Status status = LoadImagePrompt(path, TinyModel().config(), TestPlace()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("broken_adapters"))) {
    EXPECT_FALSE(LoadImagePrompt(entry.path(), TinyModel().config(), TestPlace()).ok()) << entry.path();
  }
}

TEST_F(ImagePromptFileTest, AnEncoderWithoutPreprocessorHasClipsOwn) {
  const std::string folder = folder_.Under("encoder");
  std::filesystem::copy(GoldenPath("image_prompt/image_encoder"), folder);
  const auto with = LoadImageEncoder(folder, TestPlace());
  std::filesystem::remove(folder + "/preprocessor_config.json");
  const auto without = LoadImageEncoder(folder, TestPlace());
  ASSERT_TRUE(with.ok() && without.ok()) << with.status() << without.status();
  const ImageEncoderConfig &a = (*with)->network.config(), &b = (*without)->network.config();
  EXPECT_EQ(a.edge, b.edge);
  EXPECT_EQ(a.rescale, b.rescale);
  EXPECT_EQ(a.mean, b.mean);
  EXPECT_EQ(a.std, b.std);
}

TEST_F(ImagePromptFileTest, RefusesEncoderConfigsThatAskForSomethingElse) {
  const struct {
    const char *file, *key;
    nlohmann::json value;
    const char* message;
  } cases[] = {
      {"config.json", "model_type", "siglip", "model_type is \"siglip\", only \"clip_vision_model\" is supported"},
      {"config.json", "num_channels", 4, "num_channels is 4, only 3 is supported"},
      {"config.json", "patch_size", 0, "patch_size is 0, must be an integer from 1 to 4096"},
      {"config.json", "patch_size", 64, "patch_size is larger than image_size"},
      {"config.json", "hidden_act", "relu", "hidden_act is \"relu\", must be \"gelu\" or \"quick_gelu\""},
      {"config.json", "projection_dim", 21, "visual_projection.weight is [20, 32], expected [21, 32]"},
      {"preprocessor_config.json", "resample", 2, "resample is 2, only 3 is supported"},
      {"preprocessor_config.json", "do_resize", false, "do_resize is false, only true is supported"},
      {"preprocessor_config.json", "size", "big", "size is \"big\", must be an integer from 1 to 4096"},
      {"preprocessor_config.json", "size", 31, "size is 31, less than image_size 32"},
      {"preprocessor_config.json", "crop_size", 16, "crop_size has height 16, but image_size is 32"},
      {"preprocessor_config.json", "image_std", {1, 0, 1}, "image_std must be above 0"},
      {"preprocessor_config.json", "image_mean", {1, 2}, "image_mean is [1,2], must be a list of 3 numbers"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(EncoderRefusal(c.file, c.key, c.value), HasSubstr(c.message)) << c.key;
  }
}

TEST_F(ImagePromptFileTest, AnEncodersWholeClipIsPassedOver) {
  const std::string folder = folder_.Under("whole");
  std::filesystem::copy(GoldenPath("image_prompt/image_encoder"), folder);
  TensorMap tensors = LoadTensors(folder + "/model.safetensors");
  tensors["text_model.final_layer_norm.weight"] = at::zeros({2});
  tensors["logit_scale"] = at::zeros({1});
  WriteTensors(tensors, folder + "/model.safetensors");
  EXPECT_TRUE(LoadImageEncoder(folder, TestPlace()).ok());
  tensors["vision_model.surplus"] = at::zeros({2});
  WriteTensors(tensors, folder + "/model.safetensors");
  EXPECT_THAT(std::string(LoadImageEncoder(folder, TestPlace()).status().message()),
              HasSubstr("surplus 1: vision_model.surplus"));
}

}  // namespace
}  // namespace hotlora
