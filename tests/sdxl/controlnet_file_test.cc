// ControlNets on disk: every layout gives the same net, and what cannot be used is refused by name.

#include "src/sdxl/controlnet_file.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/tensor/allocation_peak.h"
#include "src/tensor/memory_stats.h"
#include "src/weights/sgm_names.h"
#include "tests/golden_controlnets.h"
#include "tests/sdxl/model_fixture.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using testing::HasSubstr;

TensorMap InSgmNames(const TensorMap& tensors, const std::string& prefix) {
  TensorMap renamed;
  for (const auto& [name, tensor] : tensors) {
    const std::string translated = SgmControlNetParameter(name, /*layers_per_block=*/2);
    renamed[prefix + (translated.empty() ? name : translated)] = tensor;
  }
  return renamed;
}

class ControlNetFileTest : public testing::Test {
 protected:
  std::string Write(const TensorMap& tensors) {
    const std::string path = folder_.Under("net_" + std::to_string(files_++) + ".safetensors");
    WriteTensors(tensors, path);
    return path;
  }

  static absl::StatusOr<std::shared_ptr<const PlacedControlNet>> Load(const std::string& path,
                                                                      c10::ScalarType dtype = at::kFloat) {
    return LoadControlNet(path, TinyModel().config(), TestPlace(dtype));
  }

  // The refusal of a net's tensors after a change.
  absl::Status Refusal(const std::string& net, const std::function<void(TensorMap&)>& change,
                       c10::ScalarType dtype = at::kFloat) {
    TensorMap tensors = GoldenControlNet(net);
    change(tensors);
    return Load(Write(tensors), dtype).status();
  }

  // What the net makes of a fixed input.
  static at::Tensor Residual(const PlacedControlNet& loaded) {
    c10::InferenceMode guard;
    const TensorMap t = GoldenFolder("control").Load("net_call");
    const UnetInput input = GoldenUnetInput(t);
    const at::Tensor hint = loaded.network.EmbedHint(t.at("picture_0").to(TestPlace().device));
    return loaded.network.forward(input, ControlledImage{2, {{hint}}}).mid;
  }

  TemporaryFolder folder_;
  int files_ = 0;
};

TEST_F(ControlNetFileTest, EveryLayoutGivesTheSameNet) {
  for (const char* const net : {"lines", "depth"}) {
    const auto folder = Load(WriteControlNetFolder(net, folder_.Under(net)));
    ASSERT_TRUE(folder.ok()) << folder.status();
    const TensorMap& tensors = GoldenControlNet(net);
    for (const std::string& path :
         {Write(tensors), Write(InSgmNames(tensors, "")), Write(InSgmNames(tensors, "control_model."))}) {
      const auto file = Load(path);
      ASSERT_TRUE(file.ok()) << file.status();
      EXPECT_TRUE(at::equal(Residual(**file), Residual(**folder))) << path;
      EXPECT_EQ((*file)->block.nbytes(), (*folder)->block.nbytes());
    }
  }
}

// Names that SGM's code gave, against the translation that the net's reading uses.
TEST_F(ControlNetFileTest, SgmNamesAreThoseOfPublishedFiles) {
  const std::pair<const char*, const char*> names[] = {
      {"controlnet_cond_embedding.conv_in.weight", "input_hint_block.0.weight"},
      {"controlnet_cond_embedding.blocks.0.bias", "input_hint_block.2.bias"},
      {"controlnet_cond_embedding.blocks.5.weight", "input_hint_block.12.weight"},
      {"controlnet_cond_embedding.conv_out.weight", "input_hint_block.14.weight"},
      {"controlnet_down_blocks.8.weight", "zero_convs.8.0.weight"},
      {"controlnet_mid_block.bias", "middle_block_out.0.bias"},
      {"add_embedding.linear_1.weight", "label_emb.0.0.weight"},
      {"time_embedding.linear_2.bias", "time_embed.2.bias"},
      {"conv_in.weight", "input_blocks.0.0.weight"},
      {"down_blocks.1.downsamplers.0.conv.weight", "input_blocks.6.0.op.weight"},
      {"mid_block.resnets.1.conv2.weight", "middle_block.2.out_layers.3.weight"},
      {"down_blocks.2.attentions.1.proj_in.weight", "input_blocks.8.1.proj_in.weight"},
  };
  for (const auto& [name, stored] : names) {
    EXPECT_EQ(SgmControlNetParameter(name, 2), stored);
  }
}

TEST_F(ControlNetFileTest, AUnionFilesTensorsTellItsConfig) {
  const auto file = Load(Write(GoldenControlNet("union")));
  ASSERT_TRUE(file.ok()) << file.status();
  const ControlNetConfig& config = (*file)->network.config();
  ASSERT_TRUE(config.types.has_value());
  EXPECT_EQ(config.types->count, 6);
  EXPECT_EQ(config.types->layers, 1);
  EXPECT_EQ(config.encoder.levels.back().transformer_depth, 1);
  EXPECT_EQ(config.hint_channels, (std::vector<int64_t>{4, 6, 8, 12}));
  const auto folder = Load(WriteControlNetFolder("union", folder_.Under("union")));
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_TRUE(at::equal(Residual(**file), Residual(**folder)));
}

TEST_F(ControlNetFileTest, AConfigBesideAFileHolds) {
  const std::string path = Write(GoldenControlNet("lines"));
  const auto plain = Load(path);
  ASSERT_TRUE(plain.ok()) << plain.status();
  std::ifstream stream(GoldenPath("control/nets/lines/config.json"));
  nlohmann::json config = nlohmann::json::parse(stream);
  config["attention_head_dim"] = {4, 4, 8};
  const std::string beside = path.substr(0, path.rfind(".safetensors")) + ".json";
  std::ofstream(beside) << config;
  const auto configured = Load(path);
  ASSERT_TRUE(configured.ok()) << configured.status();
  EXPECT_EQ((*configured)->network.config().encoder.levels.back().heads, 8);
  EXPECT_GT(RelativeError(Residual(**configured), Residual(**plain)), 1e-3) << "heads do not matter";
  std::ofstream(beside) << "{";
  EXPECT_THAT(std::string(Load(path).status().message()), HasSubstr("config.json is not JSON"));
}

// A config of untrusted size allocates nothing before the tensors are compared with it.
TEST_F(ControlNetFileTest, AConfigCannotMakeTheReaderAllocate) {
  const std::string folder = WriteControlNetFolder("union", folder_.Under("large"));
  std::ifstream stream(folder + "/config.json");
  nlohmann::json config = nlohmann::json::parse(stream);
  config["num_control_type"] = 65536;
  config["num_trans_layer"] = 256;
  std::ofstream(folder + "/config.json") << config;
  InstallCountingCpuAllocator();
  TinyModel();  // loads once
  const AllocationPeak peak;
  const absl::Status status = Load(folder).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("task_embedding is [6, 32], expected [65536, 32]"));
  EXPECT_LT(peak.bytes(), int64_t{1} << 20);
  at::empty({2 << 20}, at::kByte);
  EXPECT_GE(peak.bytes(), int64_t{2} << 20) << "the measurement does not see tensors";
}

TEST_F(ControlNetFileTest, NamesEachTensorThatDoesNotFit) {
  const absl::Status missing = Refusal("lines", [](TensorMap& t) {
    t.erase("mid_block.resnets.0.conv1.weight");
    t["surplus.weight"] = at::zeros({2});
    t["controlnet_down_blocks.3.weight"] = at::zeros({32, 64, 1, 1});
  });
  EXPECT_EQ(missing.code(), absl::StatusCode::kFailedPrecondition);
  for (const char* const part : {"missing 1: mid_block.resnets.0.conv1.weight", "surplus 1: surplus.weight",
                                 "controlnet_down_blocks.3.weight is [32, 64, 1, 1], expected [32, 32, 1, 1]"}) {
    EXPECT_THAT(std::string(missing.message()), HasSubstr(part));
  }
}

TEST_F(ControlNetFileTest, RefusesAHintNetworkOfAnotherShape) {
  const absl::Status channels = Refusal("lines", [](TensorMap& t) {
    t["controlnet_cond_embedding.conv_in.weight"] = at::zeros({4, 4, 3, 3});
  });
  EXPECT_THAT(std::string(channels.message()),
              HasSubstr("controlnet_cond_embedding.conv_in.weight is [4, 4, 3, 3], expected [4, 3, 3, 3]"));
  const absl::Status levels = Refusal("lines", [](TensorMap& t) {
    t.erase("controlnet_cond_embedding.blocks.5.weight");
    t.erase("controlnet_cond_embedding.blocks.5.bias");
  });
  EXPECT_THAT(std::string(levels.message()), HasSubstr("hint network's halvings is 4, the model's is 8"));
}

TEST_F(ControlNetFileTest, RefusesValuesThatAreNotFinite) {
  for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    const absl::Status status = Refusal(
        "depth", [value](TensorMap& t) { t["mid_block.resnets.0.norm1.bias"] = at::full({64}, value, at::kHalf); });
    EXPECT_THAT(std::string(status.message()), HasSubstr("not finite in Float 1: mid_block.resnets.0.norm1.bias"));
  }
  // Finite in the file, but not in the dtype that the net computes in.
  const auto large = [](TensorMap& t) { t["mid_block.resnets.0.norm1.bias"] = at::full({64}, 1e6, at::kFloat); };
  EXPECT_TRUE(Refusal("depth", large).ok());
  EXPECT_THAT(std::string(Refusal("depth", large, at::kHalf).message()), HasSubstr("not finite in Half 1"));
}

TEST_F(ControlNetFileTest, RefusesOtherKindsOfFilesByName) {
  const auto message = [this](const TensorMap& tensors) {
    return std::string(Load(Write(tensors)).status().message());
  };
  const at::Tensor any = at::zeros({2});
  EXPECT_THAT(message({{"lora_controlnet", any}}), HasSubstr("control LoRA"));
  EXPECT_THAT(message({{"lora_unet_x.lora_down.weight", any}}), HasSubstr("not a ControlNet"));
  TensorMap older = GoldenControlNet("lines");
  older.erase("add_embedding.linear_1.weight");
  EXPECT_THAT(message(older), HasSubstr("for Stable Diffusion 1 or 2, as it has no add_embedding.linear_1.weight"));
  EXPECT_THAT(message(InSgmNames(older, "control_model.")), HasSubstr("it has no control_model.label_emb.0.0.weight"));
}

TEST_F(ControlNetFileTest, RefusesFilesThatAreNotSound) {
  const std::string path = Write(GoldenControlNet("depth"));
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 10);
  EXPECT_EQ(Load(path).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(Load(folder_.Under("absent.safetensors")).ok());
}

// Each broken adapter file of the golden data is no ControlNet either.
TEST_F(ControlNetFileTest, RefusesEveryBrokenFile) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("broken_adapters"))) {
    if (entry.path().extension() == ".safetensors") {
      EXPECT_FALSE(Load(entry.path()).ok()) << entry.path();
      ++files;
    }
  }
  EXPECT_GE(files, 30);
}

TEST_F(ControlNetFileTest, RefusesConfigsThatAskForSomethingElse) {
  struct Case {
    const char *key, *value, *message;
  };
  const Case cases[] = {
      {"conditioning_channels", "4", "config.json: conditioning_channels is 4, only 3 is supported"},
      {"controlnet_conditioning_channel_order", "\"bgr\"", "only \"rgb\" is supported"},
      {"global_pool_conditions", "true", "config.json: global_pool_conditions is true, is not supported"},
      {"addition_embed_type", "null", "config.json: addition_embed_type is null"},
      {"mid_block_type", "\"UNetMidBlock3D\"", "must be UNetMidBlock2DCrossAttn or UNetMidBlock2D"},
      {"transformer_layers_per_block", "[1, 2, 2]", "transformer_layers_per_block[1] is 2, at most the model's 1"},
      {"cross_attention_dim", "768", "cross_attention_dim is 768, the model's is 24"},
      {"block_out_channels", "[32, 64, 64]", "block_out_channels[1] is 64, the model's is 32"},
      {"conditioning_embedding_out_channels", "[4, 8, 12]", "hint network's halvings is 4, the model's is 8"},
      {"num_control_type", "0", "num_control_type is 0, must be an integer from 1 to"},
      {"num_trans_channel", "64", "num_trans_channel is 64, but the first of block_out_channels is 32"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.key);
    const std::string folder = WriteControlNetFolder("union", folder_.Under(std::string("config_") + c.key));
    std::ifstream stream(folder + "/config.json");
    nlohmann::json config = nlohmann::json::parse(stream);
    config[c.key] = nlohmann::json::parse(c.value);
    std::ofstream(folder + "/config.json") << config;
    const absl::Status status = Load(folder).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace hotlora
