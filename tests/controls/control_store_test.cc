// ControlNets by name: every layout, the two tiers and their budgets, and what is refused.

#include "src/controls/control_store.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/base/error_details.h"
#include "src/sdxl/placed_control_net.h"
#include "src/tensor/memory_stats.h"
#include "tests/controls/control_store_fixture.h"
#include "tests/golden_controlnets.h"
#include "tests/sdxl/model_fixture.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using testing::HasSubstr;

class ControlStoreTest : public ControlStoreFixture {
 protected:
  void SetUp() override {
    WriteControlNetFolder("lines", folder_.Under("edges/lines"));
    WriteControlNetFolder("union", folder_.Under("union"));
    WriteTensors(GoldenControlNet("depth"), folder_.Under("depth.safetensors"));
    Open({});
  }

  // The options' folder of ControlNets is the fixture's.
  void Open(ControlStoreOptions options) {
    options.controls = folder_.path();
    OpenStore(options);
  }
};

TEST_F(ControlStoreTest, LendsEveryLayoutOnTheDevice) {
  for (const auto& [name, format, types] :
       {std::tuple("edges/lines", "controlnet", 0u), {"depth", "controlnet", 0u}, {"union", "union", 6u}}) {
    SCOPED_TRACE(name);
    const auto lease = Acquire(name);
    ASSERT_NE(lease, nullptr);
    EXPECT_EQ(lease->info().format, format);
    EXPECT_EQ(lease->info().control_types, types);
    EXPECT_EQ(lease->info().tier, AdapterTier::kDevice);
    EXPECT_EQ(lease->report().tier_found, AdapterTier::kDisk);
    EXPECT_EQ(lease->info().content_sha256.size(), 64u);
    EXPECT_EQ(lease->control_net()->block.device(), TestPlace().device);
    EXPECT_THROW(lease->weights(), std::bad_variant_access) << "it is no adapter";
  }
  EXPECT_EQ(store_->List("", 10)->size(), 3u);
}

// Diffusers writes large networks as several files and an index.
class ShardedControlNetTest : public ControlStoreTest {
 protected:
  // Splits the net into `count` shards, and returns the index.
  nlohmann::json WriteShards(const std::string& net, const std::string& folder, size_t count,
                             const std::string& index = "diffusion_pytorch_model.safetensors.index.json") {
    std::filesystem::remove_all(folder_.Under(folder));
    WriteControlNetFolder(net, folder_.Under(folder));
    std::filesystem::remove(Path(folder, "diffusion_pytorch_model.safetensors"));
    return hotlora::WriteShards(GoldenControlNet(net), folder_.Under(folder), "diffusion_pytorch_model", count, index);
  }

  static std::string Shard(size_t i, size_t count) { return ShardName("diffusion_pytorch_model", i, count); }
  std::string Path(const std::string& folder, const std::string& file) { return folder_.Under(folder) + "/" + file; }

  std::vector<std::string> Names() {
    std::vector<std::string> names;
    const std::vector<AdapterInfo> listed = store_->List("", 100).value();
    for (const AdapterInfo& info : listed) {
      names.push_back(info.name);
    }
    return names;
  }
};

TEST_F(ShardedControlNetTest, ShardsGiveTheSameNet) {
  for (const auto& [net, folder, count, index] :
       {std::tuple("lines", "three", 3, "diffusion_pytorch_model.safetensors.index.json"),
        {"lines", "one", 1, "diffusion_pytorch_model.fp16.safetensors.index.json"},
        {"lines", "old", 2, "diffusion_pytorch_model.safetensors.index.fp16.json"}}) {
    SCOPED_TRACE(folder);
    WriteShards(net, folder, count, index);
    const at::Tensor whole = Acquire("edges/lines")->control_net()->block.clone();
    const auto sharded = Acquire(folder);
    ASSERT_NE(sharded, nullptr);
    EXPECT_TRUE(at::equal(sharded->control_net()->block, whole));
    EXPECT_EQ(sharded->info().content_sha256.size(), 64u);
    EXPECT_EQ(sharded->info().format, "controlnet");
    uint64_t bytes = 0;
    for (int i = 0; i < count; ++i) {
      bytes += std::filesystem::file_size(Path(folder, Shard(i, count)));
    }
    EXPECT_EQ(sharded->info().bytes, bytes);
  }
  EXPECT_THAT(Names(), testing::ElementsAre("depth", "edges/lines", "old", "one", "three", "union"));
}

TEST_F(ShardedControlNetTest, AVariantOf16BitsIsReadAsTheBaseModelsIs) {
  WriteControlNetFolder("depth", folder_.Under("half"));
  std::filesystem::rename(Path("half", "diffusion_pytorch_model.safetensors"),
                          Path("half", "diffusion_pytorch_model.fp16.safetensors"));
  const at::Tensor whole = Acquire("depth")->control_net()->block.clone();
  const auto half = Acquire("half");
  ASSERT_NE(half, nullptr);
  EXPECT_TRUE(at::equal(half->control_net()->block, whole));
}

TEST_F(ShardedControlNetTest, AShardThatIsReplacedIsReadAgain) {
  WriteShards("lines", "three", 3);
  const std::string before = Acquire("three")->info().content_sha256;
  EXPECT_EQ(Acquire("three")->report().tier_found, AdapterTier::kDevice);
  std::filesystem::copy_file(Path("three", Shard(1, 3)), Path("three", "copy"));
  std::filesystem::rename(Path("three", "copy"), Path("three", Shard(1, 3)));
  const auto again = Acquire("three");
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->report().tier_found, AdapterTier::kDisk);
  EXPECT_EQ(again->info().content_sha256, before);
  std::filesystem::remove(Path("three", Shard(2, 3)));
  ExpectRefused("three", absl::StatusCode::kFailedPrecondition, "CONTROL_INVALID",
                "lacks \"" + Shard(2, 3) + "\", which diffusion_pytorch_model.safetensors.index.json names");
}

TEST_F(ShardedControlNetTest, TheyAreDeletedAsOne) {
  WriteShards("lines", "three", 3);
  EXPECT_TRUE(store_->Delete("three").ok());
  EXPECT_FALSE(std::filesystem::exists(folder_.Under("three")));
  EXPECT_THAT(Names(), testing::ElementsAre("depth", "edges/lines", "union"));
}

TEST_F(ShardedControlNetTest, WhatIsWrongIsNamed) {
  constexpr char kIndex[] = "diffusion_pytorch_model.safetensors.index.json";
  const auto refused = [&](const std::function<void(nlohmann::json&)>& change, const std::string& message) {
    nlohmann::json index = WriteShards("lines", "bad", 2);
    change(index);
    std::ofstream(Path("bad", kIndex)) << index;
    ExpectRefused("bad", absl::StatusCode::kFailedPrecondition, "CONTROL_INVALID", message);
  };
  refused([](nlohmann::json& index) { index.erase("weight_map"); },
          std::string("has ") + kIndex + ", whose weight_map is missing");
  refused([](nlohmann::json& index) { index["weight_map"]["a"] = "../depth.safetensors"; },
          "weight_map of a is \"../depth.safetensors\", must be a safetensors file of its folder");
  refused([](nlohmann::json& index) { index["weight_map"]["a"] = "other.safetensors"; },
          "names \"other.safetensors\", must be diffusion_pytorch_model-N-of-M.safetensors");
  refused([](nlohmann::json& index) { index = "text"; }, "is not a JSON object");
  refused(
      [](nlohmann::json& index) {
        for (int i = 0; i < 100; ++i) {
          index["weight_map"][std::to_string(i)] = absl::StrCat("diffusion_pytorch_model-", i, "-of-100.safetensors");
        }
      },
      "which names 102 files; allowed are 64");
  WriteShards("lines", "cut", 2);
  std::filesystem::resize_file(Path("cut", Shard(1, 2)), 1000);
  ExpectRefused("cut", absl::StatusCode::kFailedPrecondition, "CONTROL_INVALID", Shard(1, 2) + ": header of ");
  WriteShards("lines", "twice", 2);
  std::filesystem::copy_file(Path("twice", Shard(0, 2)), Path("twice", Shard(1, 2)),
                             std::filesystem::copy_options::overwrite_existing);
  ExpectRefused("twice", absl::StatusCode::kFailedPrecondition, "CONTROL_INVALID", "is there twice");
}

// What is lent computes as a net that is read for itself.
TEST_F(ControlStoreTest, LendsTheNetOfTheFile) {
  c10::InferenceMode guard;
  const auto lent = Acquire("union")->control_net();
  const auto read = LoadControlNet(folder_.Under("union"), TinyModel().config(), TestPlace());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(at::equal(lent->block.cpu(), (*read)->block.cpu()));
  const at::Tensor picture = at::rand({1, 3, 64, 64}).to(TestPlace().device);
  EXPECT_TRUE(at::equal(lent->network.EmbedHint(picture), (*read)->network.EmbedHint(picture)));
}

TEST_F(ControlStoreTest, TheHashOfAFileIsThatOfItsBytes) {
  EXPECT_EQ(Acquire("depth")->info().content_sha256, HashOf(BytesOf(folder_.Under("depth.safetensors"))));
}

TEST_F(ControlStoreTest, ByDefaultHasRoomForTheLargestAndForAnUpload) {
  for (const TierStatistics& tier : store_->Statistics().tiers) {
    EXPECT_GE(tier.capacity_bytes, BlockOf("union"));
  }
  const TemporaryFolder empty;
  ControlStoreOptions options;
  options.controls = empty.path();
  const auto store = MakeControlStore(options, TinyModel().config(), TestPlace(), &metrics_.controls());
  ASSERT_TRUE(store.ok()) << store.status();
  for (const TierStatistics& tier : (*store)->Statistics().tiers) {
    EXPECT_GE(tier.capacity_bytes, BlockOf("edges/lines"));
  }
  const auto none = MakeControlStore({}, TinyModel().config(), TestPlace(), &metrics_.controls());
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(GetErrorDetails((*none)->Acquire("lines").status()).reason, "CONTROL_NOT_FOUND");
}

TEST_F(ControlStoreTest, EvictsTheLeastRecentlyUsedAndNeverALeasedOne) {
  const uint64_t largest = std::max(BlockOf("edges/lines"), BlockOf("depth"));
  ControlStoreOptions options;
  options.host_bytes = options.device_bytes = largest;
  Open(options);
  auto lines = Acquire("edges/lines");
  ExpectRefused("depth", absl::StatusCode::kResourceExhausted, "CONTROL_BUDGET", "ControlNet \"depth\"");
  const auto both =
      store_->AcquireAll(std::vector<std::string>{"edges/lines", "depth"}, [] { return absl::OkStatus(); });
  EXPECT_EQ(GetErrorDetails(both.status()).reason, "CONTROL_BUDGET") << both.status();
  const auto other = store_->AcquireAll(std::vector<std::string>{"depth"}, [] { return absl::OkStatus(); });
  EXPECT_EQ(GetErrorDetails(other.status()).reason, "CONTROLS_IN_USE") << other.status();
  lines.reset();
  Acquire("depth");
  EXPECT_EQ(TierOf("edges/lines"), AdapterTier::kDisk);
  EXPECT_EQ(TierOf("depth"), AdapterTier::kDevice);
}

TEST_F(ControlStoreTest, APinnedNetStaysUntilItIsUnloaded) {
  ControlStoreOptions options;
  options.host_bytes = options.device_bytes = std::max(BlockOf("edges/lines"), BlockOf("depth"));
  Open(options);
  ASSERT_TRUE(store_->Load("depth", AdapterTier::kDevice, /*pin=*/true).ok());
  EXPECT_TRUE(store_->Get("depth")->pinned);
  ExpectRefused("edges/lines", absl::StatusCode::kResourceExhausted, "CONTROL_BUDGET", "ControlNet \"edges/lines\"");
  ASSERT_TRUE(store_->Unload("depth").ok());
  EXPECT_NE(Acquire("edges/lines"), nullptr);
}

// Nets come and go in storages of fixed size: the device's bytes never change, the host's are those of its blocks.
TEST_F(ControlStoreTest, MemoryIsExactlyBackAfterAnUnload) {
  const c10::Device device = TestPlace().device;
  const int64_t before = GetMemoryStats(device).allocated;
  {
    const auto lease = Acquire("union");
    if (device.is_cpu()) {
      EXPECT_GE(GetMemoryStats(device).allocated, before + static_cast<int64_t>(lease->info().block_bytes));
    }
    ASSERT_TRUE(store_->Unload("union").ok());
    EXPECT_TRUE(lease->control_net()->block.defined()) << "a lease keeps its net";
  }
  EXPECT_EQ(GetMemoryStats(device).allocated, before);
}

TEST_F(ControlStoreTest, RefusesWhatIsNoControlNetOfThisModel) {
  ExpectRefused("absent", absl::StatusCode::kNotFound, "CONTROL_NOT_FOUND", "no ControlNet \"absent\"");
  ExpectRefused("union/diffusion_pytorch_model", absl::StatusCode::kNotFound, "CONTROL_NOT_FOUND", "no ControlNet");
  TensorMap tensors = GoldenControlNet("depth");
  tensors["controlnet_cond_embedding.conv_in.weight"] = at::zeros({4, 4, 3, 3});
  WriteTensors(tensors, folder_.Under("channels.safetensors"));
  ExpectRefused("channels", absl::StatusCode::kFailedPrecondition, "CONTROL_MISMATCH",
                "controlnet_cond_embedding.conv_in.weight is [4, 4, 3, 3], expected [4, 3, 3, 3]");
  tensors = GoldenControlNet("depth");
  tensors["controlnet_mid_block.bias"] = at::full_like(tensors["controlnet_mid_block.bias"], std::nan(""));
  WriteTensors(tensors, folder_.Under("nan.safetensors"));
  ExpectRefused("nan", absl::StatusCode::kFailedPrecondition, "CONTROL_INVALID", "not finite");
  std::filesystem::create_directory(folder_.Under("bare"));
  std::ofstream(folder_.Under("bare/config.json")) << "{}";
  ExpectRefused("bare", absl::StatusCode::kFailedPrecondition, "CONTROL_INVALID",
                "lacks diffusion_pytorch_model.safetensors beside its config.json");
  EXPECT_EQ(store_->Get("nan")->state, AdapterState::kFailed);
  EXPECT_NE(Acquire("depth"), nullptr);
}

// Each names the net, and the file, tensor or key with what it is and what it must be.
TEST_F(ControlStoreTest, EachBrokenNetIsRefusedByFileAndValue) {
  const std::string invalid = "CONTROL_INVALID", mismatch = "CONTROL_MISMATCH";
  struct Case {
    const char* net;  // of the golden ones
    std::function<void(TensorMap&)> change;
    std::string reason, message;
  };
  const auto set = [](const char* name, std::vector<int64_t> shape) {
    return [name, shape](TensorMap& tensors) { tensors[name] = at::zeros(shape); };
  };
  const Case files[] = {
      {"depth", set("conv_in.weight", {64, 4, 3, 3}), mismatch,
       "conv_in.weight is [64, 4, 3, 3], expected [32, 4, 3, 3]"},
      {"depth", set("down_blocks.2.resnets.0.conv1.weight", {8, 8, 3, 3}), mismatch,
       "down_blocks.2.resnets.0.conv1.weight is [8, 8, 3, 3], expected [64, 32, 3, 3]"},
      {"depth", set("controlnet_cond_embedding.conv_out.weight", {32, 10, 3, 3}), mismatch,
       "controlnet_cond_embedding.conv_out.weight is [32, 10, 3, 3], expected [32, 16, 3, 3]"},
      {"depth", set("another.weight", {2}), mismatch, "surplus 1: another.weight"},
      {"depth", [](TensorMap& tensors) { tensors.erase("mid_block.resnets.0.conv1.bias"); }, mismatch,
       "missing 1: mid_block.resnets.0.conv1.bias"},
      {"depth", [](TensorMap& tensors) { tensors.erase("add_embedding.linear_1.weight"); }, mismatch,
       "for Stable Diffusion 1 or 2"},
      {"depth",
       [](TensorMap& tensors) {
         tensors = {{"lora_controlnet", at::zeros({2})}};
       },
       mismatch, "control LoRA"},
      {"union", set("task_embedding", {6, 16}), mismatch, "task_embedding is [6, 16], expected [6, 32]"},
  };
  for (const Case& c : files) {
    TensorMap tensors = GoldenControlNet(c.net);
    c.change(tensors);
    WriteTensors(tensors, folder_.Under("broken.safetensors"));
    ExpectRefused("broken", absl::StatusCode::kFailedPrecondition, c.reason, c.message);
    ExpectRefused("broken", absl::StatusCode::kFailedPrecondition, c.reason, "ControlNet \"broken\"");
  }
  std::filesystem::remove(folder_.Under("broken.safetensors"));

  struct Config {
    std::string text, reason, message;
  };
  std::ifstream stream(GoldenPath("control/nets/union/config.json"));
  const nlohmann::json sound = nlohmann::json::parse(stream);
  const auto changed = [&sound](const char* key, const nlohmann::json& value) {
    nlohmann::json config = sound;
    config[key] = value;
    return config.dump();
  };
  const Config configs[] = {
      {"{", invalid, " is not JSON"},
      {"[]", invalid, " is not a JSON object"},
      {std::string((4 << 20) + 1, ' '), invalid, "has a configuration of 4194305 bytes; allowed are 4194304"},
      {changed("num_control_type", 65536), mismatch, "task_embedding is [6, 32], expected [65536, 32]"},
      {changed("num_trans_layer", 2), mismatch, "missing"},
      {changed("layers_per_block", 3), mismatch, "layers_per_block is 3, the model's is 2"},
      {changed("block_out_channels", {32, 64, 64}), mismatch, "block_out_channels[1] is 64, the model's is 32"},
      {changed("conditioning_channels", 4), mismatch, ": conditioning_channels is 4, only 3 is supported"},
      {changed("conditioning_embedding_out_channels", {4, 6, 8, 2048}), mismatch,
       "conditioning_embedding_out_channels has 2048, at most 1024"},
      {changed("cross_attention_dim", 768), mismatch, "cross_attention_dim is 768, the model's is 24"},
  };
  WriteTensors(GoldenControlNet("union"), folder_.Under("beside.safetensors"));
  for (const Config& c : configs) {
    SCOPED_TRACE(c.text.substr(0, 200));
    for (const auto& [name, config] : {std::pair("union", "config.json"), {"beside", "beside.json"}}) {
      std::ofstream(folder_.Under(name == std::string("union") ? "union/config.json" : "beside.json")) << c.text;
      ExpectRefused(name, absl::StatusCode::kFailedPrecondition, c.reason, c.message);
      const std::string message(store_->Acquire(name).status().message());
      EXPECT_THAT(message, HasSubstr(absl::StrCat("ControlNet \"", name, "\"")));
      if (c.message.front() == ' ' || c.message.front() == ':') {
        EXPECT_THAT(message, HasSubstr(config + c.message));
      }
    }
  }
  std::filesystem::remove(folder_.Under("union/config.json"));
  ExpectRefused("union", absl::StatusCode::kFailedPrecondition, invalid, "lacks config.json beside its tensors");
  EXPECT_NE(Acquire("depth"), nullptr);
}

TEST_F(ControlStoreTest, RefusesEveryBrokenFile) {
  ExpectBrokenFilesRefused("broken", folder_.Under("broken.safetensors"), "CONTROL_INVALID", "CONTROL_MISMATCH");
  EXPECT_NE(Acquire("union"), nullptr);
}

TEST_F(ControlStoreTest, ReceivesAFileAndDeletesIt) {
  const auto info = Upload("new/depth", BytesOf(folder_.Under("depth.safetensors")));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->format, "controlnet");
  const auto lease = Acquire("new/depth");
  ASSERT_TRUE(store_->Delete("new/depth").ok());
  ExpectRefused("new/depth", absl::StatusCode::kNotFound, "CONTROL_NOT_FOUND", "no ControlNet");
  ASSERT_TRUE(store_->Delete("union").ok());
  EXPECT_FALSE(std::filesystem::exists(folder_.Under("union")));
}

}  // namespace
}  // namespace hotlora
