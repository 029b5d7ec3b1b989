// Image prompts and their encoder: by name in the memory of ControlNets, and what is refused.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/adapters/stored_kind.h"
#include "src/sdxl/placed_image_prompt.h"
#include "tests/controls/control_store_fixture.h"
#include "tests/golden_controlnets.h"

namespace hotlora {
namespace {

std::string Prompt(const std::string& name) { return std::string(kImagePromptKind.prefix) + name; }

TensorMap Golden(const std::string& kind) { return LoadTensors(GoldenPath("image_prompt/" + kind + ".safetensors")); }

class ImagePromptStoreTest : public ControlStoreFixture {
 protected:
  void SetUp() override {
    for (const char* const part : {"controls", "prompts/styles"}) {
      std::filesystem::create_directories(folder_.Under(part));
    }
    WriteTensors(GoldenControlNet("depth"), folder_.Under("controls/depth.safetensors"));
    std::filesystem::copy_file(GoldenPath("image_prompt/standard.safetensors"), InPrompts("depth"));
    std::filesystem::copy_file(GoldenPath("image_prompt/plus.safetensors"), InPrompts("styles/plus"));
    std::filesystem::copy(GoldenPath("image_prompt/image_encoder"), folder_.Under("encoder"));
    Open({});
  }

  void Open(ControlStoreOptions options) {
    options.controls = folder_.Under("controls");
    options.image_prompts = folder_.Under("prompts");
    options.image_encoder = folder_.Under("encoder");
    OpenStore(options);
  }

  std::string InPrompts(const std::string& name) const { return folder_.Under("prompts/" + name + ".safetensors"); }

  void SetConfig(const std::string& file, const std::string& key, const nlohmann::json& value) {
    const std::string path = folder_.Under("encoder/" + file);
    nlohmann::json config = nlohmann::json::parse(BytesOf(path));
    config[key] = value;
    std::ofstream(path) << config;
  }

  absl::Status AcquireAll(const std::vector<std::string>& names) {
    return store_->AcquireAll(names, [] { return absl::OkStatus(); }).status();
  }
};

TEST_F(ImagePromptStoreTest, EachKindHasNamesOfItsOwn) {
  for (const auto& [name, format, file] :
       {std::tuple(std::string("depth"), "controlnet", folder_.Under("controls/depth.safetensors")),
        {Prompt("depth"), "ip_adapter", InPrompts("depth")},
        {Prompt("styles/plus"), "ip_adapter_plus", InPrompts("styles/plus")}}) {
    SCOPED_TRACE(name);
    const auto lease = Acquire(name);
    ASSERT_NE(lease, nullptr);
    EXPECT_EQ(lease->info().format, format);
    EXPECT_EQ(lease->info().tier, AdapterTier::kDevice);
    EXPECT_EQ(lease->info().content_sha256, HashOf(BytesOf(file)));
  }
  const auto names = [this](const std::string& after) {
    std::vector<std::string> listed;
    const std::vector<AdapterInfo> infos = store_->List(after, 10).value();
    for (const AdapterInfo& info : infos) {
      listed.push_back(info.name);
    }
    return listed;
  };
  EXPECT_EQ(names(""), std::vector<std::string>{"depth"});
  EXPECT_EQ(names(Prompt("")), (std::vector<std::string>{"depth", "styles/plus"}));
  EXPECT_EQ(names(Prompt("depth")), std::vector<std::string>{"styles/plus"});
  EXPECT_EQ(store_->Get(Prompt("depth"))->name, "depth");
  EXPECT_EQ(store_->Unload(Prompt("depth"))->tier, AdapterTier::kDisk);
  EXPECT_EQ(TierOf("depth"), AdapterTier::kDevice) << "the ControlNet of that name is another file";
}

TEST_F(ImagePromptStoreTest, LendsWhatTheFilesHold) {
  c10::InferenceMode guard;
  const auto prompt_lease = Acquire(Prompt("styles/plus")), encoder_lease = Acquire(kImageEncoderKey);
  EXPECT_EQ(prompt_lease->info().encoder.hidden_size, 32);
  EXPECT_EQ(prompt_lease->info().encoder.projection_dim, 0);
  EXPECT_EQ(Acquire(Prompt("depth"))->info().encoder.projection_dim, 20);
  EXPECT_EQ(encoder_lease->info().encoder.hidden_size, 32);
  EXPECT_EQ(encoder_lease->info().encoder.projection_dim, 20);
  const auto prompt = prompt_lease->image_prompt();
  const auto encoder = encoder_lease->image_encoder();
  const auto read_prompt = LoadImagePrompt(InPrompts("styles/plus"), TinyModel().config(), TestPlace());
  const auto read_encoder = LoadImageEncoder(folder_.Under("encoder"), TestPlace());
  ASSERT_TRUE(read_prompt.ok() && read_encoder.ok()) << read_prompt.status() << read_encoder.status();
  EXPECT_EQ(prompt->block.device(), TestPlace().device);
  EXPECT_EQ(encoder->block.device(), TestPlace().device);
  const at::Tensor pixels = at::randn({1, 3, 32, 32}).to(TestPlace().device, TestPlace().dtype);
  const at::Tensor tokens = prompt->network.TokensOf(encoder->network.Encode(pixels));
  EXPECT_TRUE(at::equal(tokens, (*read_prompt)->network.TokensOf((*read_encoder)->network.Encode(pixels))));
  const auto seen = prompt->network.ProjectTokens(tokens), expected = (*read_prompt)->network.ProjectTokens(tokens);
  ASSERT_EQ(seen.size(), expected.size());
  for (size_t i = 0; i < seen.size(); ++i) {
    EXPECT_TRUE(at::equal(seen[i], expected[i])) << i;
  }
}

TEST_F(ImagePromptStoreTest, TheEncodersVersionHasItsConfigsInIt) {
  const std::string before = Acquire(kImageEncoderKey)->info().content_sha256;
  SetConfig("preprocessor_config.json", "image_mean", {0.5, 0.5, 0.5});
  const auto changed = Acquire(kImageEncoderKey);
  EXPECT_NE(changed->info().content_sha256, before);
  EXPECT_EQ(changed->image_encoder()->network.config().mean[0], 0.5);
  std::filesystem::remove(folder_.Under("encoder/preprocessor_config.json"));
  EXPECT_NE(Acquire(kImageEncoderKey)->image_encoder()->network.config().mean[0], 0.5);
}

TEST_F(ImagePromptStoreTest, TheEncodersFilesMayBeLinks) {
  const std::string weights = folder_.Under("encoder/model.safetensors"), blob = folder_.Under("blob");
  std::filesystem::rename(weights, blob);
  std::filesystem::create_symlink(blob, weights);
  EXPECT_NE(Acquire(kImageEncoderKey), nullptr);
}

TEST_F(ImagePromptStoreTest, TheEncoderMayBeSeveralFiles) {
  const at::Tensor whole = Acquire(kImageEncoderKey)->image_encoder()->block.cpu().clone();
  std::filesystem::remove(folder_.Under("encoder/model.safetensors"));
  WriteShards(LoadTensors(GoldenPath("image_prompt/image_encoder/model.safetensors")), folder_.Under("encoder"),
              "model", 3, "model.safetensors.index.json");
  const auto lease = Acquire(kImageEncoderKey);
  ASSERT_NE(lease, nullptr);
  EXPECT_EQ(lease->report().tier_found, AdapterTier::kDisk) << "it is another version";
  EXPECT_TRUE(at::equal(lease->image_encoder()->block.cpu(), whole));
  std::filesystem::remove(folder_.Under("encoder/" + ShardName("model", 1, 3)));
  EXPECT_EQ(GetErrorDetails(store_->Load(kImageEncoderKey, AdapterTier::kHost, false).status()).reason,
            "IMAGE_ENCODER_INVALID");
}

TEST_F(ImagePromptStoreTest, NothingIsWrittenIntoTheEncodersFolder) {
  const auto upload = store_->BeginUpload({kImageEncoderKey, 8, HashOf("x"), false});
  EXPECT_EQ(upload.status().code(), absl::StatusCode::kFailedPrecondition) << upload.status();
  EXPECT_EQ(store_->Delete(kImageEncoderKey).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(Acquire(kImageEncoderKey), nullptr);
}

TEST_F(ImagePromptStoreTest, KindsShareOneMemory) {
  const uint64_t net = BlockOf("depth"), plus = BlockOf(Prompt("styles/plus")), encoder = BlockOf(kImageEncoderKey);
  for (const TierStatistics& tier : store_->Statistics().tiers) {
    EXPECT_GE(tier.capacity_bytes, net + plus + encoder) << "by default there is room for the largest of each kind";
  }
  ControlStoreOptions options;
  options.host_bytes = options.device_bytes = std::max(net, plus + encoder);
  Open(options);
  EXPECT_TRUE(AcquireAll({Prompt("styles/plus"), kImageEncoderKey}).ok());
  EXPECT_TRUE(AcquireAll({"depth"}).ok());
  EXPECT_EQ(TierOf(kImageEncoderKey), AdapterTier::kDisk) << "it made room for the ControlNet";
  const absl::Status all = AcquireAll({"depth", Prompt("styles/plus"), kImageEncoderKey});
  EXPECT_EQ(GetErrorDetails(all).reason, "CONTROL_BUDGET") << all;
  const auto lease = Acquire("depth");
  EXPECT_EQ(GetErrorDetails(AcquireAll({Prompt("styles/plus"), kImageEncoderKey})).reason, "CONTROLS_IN_USE");
  ExpectRefused(Prompt("styles/plus"), absl::StatusCode::kResourceExhausted, "CONTROL_BUDGET",
                "image prompt \"styles/plus\": needs");
}

TEST_F(ImagePromptStoreTest, RefusesFilesThatCannotBeUsed) {
  const struct {
    const char* kind;
    std::function<void(TensorMap&)> change;
    const char *reason, *message;
  } cases[] = {
      {"standard", [](TensorMap& t) { t.erase("ip_adapter.31.to_k_ip.weight"); }, "IMAGE_PROMPT_MISMATCH",
       "missing 1: ip_adapter.31.to_k_ip.weight"},
      {"standard", [](TensorMap& t) { t["extra"] = at::zeros({2}); }, "IMAGE_PROMPT_MISMATCH", "surplus 1: extra"},
      {"plus",
       [](TensorMap& t) {
         t["ip_adapter.1.to_v_ip.weight"] = at::zeros({64, 24});
       },
       "IMAGE_PROMPT_MISMATCH", "ip_adapter.1.to_v_ip.weight is [64, 24], expected [32, 24]"},
      {"standard",
       [](TensorMap& t) {
         t["image_proj.norm.weight"] = at::zeros({768});
         t["image_proj.proj.weight"] = at::zeros({3072, 20});
       },
       "IMAGE_PROMPT_MISMATCH", "its tokens are 768 wide, the model's cross_attention_dim is 24"},
      {"standard", [](TensorMap& t) { t = GoldenControlNet("depth"); }, "IMAGE_PROMPT_MISMATCH", "not an IP-Adapter"},
      {"standard", [](TensorMap& t) { t["image_proj.norm.bias"] = at::full({24}, std::nan(""), at::kHalf); },
       "IMAGE_PROMPT_INVALID", "not finite"},
  };
  for (const auto& test : cases) {
    SCOPED_TRACE(test.message);
    TensorMap tensors = Golden(test.kind);
    test.change(tensors);
    WriteTensors(tensors, InPrompts("changed"));
    ExpectRefused(Prompt("changed"), absl::StatusCode::kFailedPrecondition, test.reason, test.message);
    EXPECT_EQ(store_->Get(Prompt("changed"))->state, AdapterState::kFailed);
  }
  ExpectRefused(Prompt("absent"), absl::StatusCode::kNotFound, "IMAGE_PROMPT_NOT_FOUND", "no image prompt \"absent\"");
  ExpectBrokenFilesRefused(Prompt("broken"), InPrompts("broken"), "IMAGE_PROMPT_INVALID", "IMAGE_PROMPT_MISMATCH");
  EXPECT_NE(Acquire(Prompt("depth")), nullptr);
}

TEST_F(ImagePromptStoreTest, RefusesAnEncoderThatCannotBeUsed) {
  const std::string weights = folder_.Under("encoder/model.safetensors"), sound = BytesOf(weights);
  const auto refused = [this](const char* reason, const char* message) {
    ExpectRefused(kImageEncoderKey, absl::StatusCode::kFailedPrecondition, reason, message);
  };
  SetConfig("config.json", "projection_dim", 21);
  refused("IMAGE_ENCODER_MISMATCH", "visual_projection.weight is [20, 32], expected [21, 32]");
  SetConfig("config.json", "projection_dim", 20);
  SetConfig("config.json", "model_type", "siglip");
  refused("IMAGE_ENCODER_MISMATCH", "only \"clip_vision_model\" is supported");
  SetConfig("config.json", "model_type", "clip_vision_model");
  SetConfig("preprocessor_config.json", "resample", 2);
  refused("IMAGE_ENCODER_MISMATCH", "resample is 2, only 3 is supported");
  SetConfig("preprocessor_config.json", "resample", 3);
  ExpectBrokenFilesRefused(kImageEncoderKey, weights, "IMAGE_ENCODER_INVALID", "IMAGE_ENCODER_MISMATCH");
  std::filesystem::remove(weights);
  refused("IMAGE_ENCODER_INVALID", "lacks model.safetensors beside its config.json");
  std::ofstream(weights, std::ios::binary) << sound;
  std::ofstream(folder_.Under("encoder/config.json")) << "{";
  refused("IMAGE_ENCODER_INVALID", "config.json ");
  std::filesystem::remove(folder_.Under("encoder/config.json"));
  refused("IMAGE_ENCODER_INVALID", "lacks config.json beside its tensors");
  std::filesystem::remove_all(folder_.Under("encoder"));
  ExpectRefused(kImageEncoderKey, absl::StatusCode::kNotFound, "NO_IMAGE_ENCODER", "image encoder");
  std::filesystem::copy(GoldenPath("image_prompt/image_encoder"), folder_.Under("encoder"));
  EXPECT_NE(Acquire(kImageEncoderKey), nullptr);
}

TEST_F(ImagePromptStoreTest, ReceivesAFileAndDeletesIt) {
  const auto info = Upload(Prompt("new/plus"), BytesOf(InPrompts("styles/plus")));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->name, "new/plus");
  EXPECT_EQ(info->format, "ip_adapter_plus");
  const auto lease = Acquire(Prompt("new/plus"));
  ASSERT_TRUE(store_->Delete(Prompt("new/plus")).ok());
  EXPECT_FALSE(std::filesystem::exists(InPrompts("new/plus")));
  ExpectRefused(Prompt("new/plus"), absl::StatusCode::kNotFound, "IMAGE_PROMPT_NOT_FOUND", "no image prompt");
  const auto wrong = Upload(Prompt("net"), BytesOf(folder_.Under("controls/depth.safetensors")));
  EXPECT_EQ(GetErrorDetails(wrong.status()).reason, "IMAGE_PROMPT_MISMATCH") << wrong.status();
  EXPECT_FALSE(std::filesystem::exists(InPrompts("net")));
}

TEST_F(ImagePromptStoreTest, AFolderThatIsNotGivenHasNothing) {
  OpenStore({});
  ExpectRefused(Prompt("depth"), absl::StatusCode::kNotFound, "IMAGE_PROMPT_NOT_FOUND", "no image prompt \"depth\"");
  ExpectRefused(kImageEncoderKey, absl::StatusCode::kNotFound, "NO_IMAGE_ENCODER", "no image encoder");
  const auto upload = store_->BeginUpload({Prompt("x"), 8, HashOf("x"), false});
  EXPECT_EQ(GetErrorDetails(upload.status()).reason, "NO_IMAGE_PROMPT_FOLDER") << upload.status();
}

}  // namespace
}  // namespace hotlora
