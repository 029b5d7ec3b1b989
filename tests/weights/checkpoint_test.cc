#include "src/weights/checkpoint.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include <ATen/ATen.h>

#include "src/base/sha256.h"
#include "src/tensor/memory_stats.h"
#include "src/weights/safetensors_file.h"
#include "tests/golden_path.h"

namespace hotlora {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kUnetFile[] = "unet/diffusion_pytorch_model.safetensors";
constexpr char kTextFile[] = "text_encoder/model.safetensors";

struct Entry {
  std::string name;
  StoredDtype dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

std::vector<Entry> ReadEntries(const std::string& path) {
  const auto file = SafetensorsFile::ReadFile(path, uint64_t{1} << 30);
  EXPECT_TRUE(file.ok()) << file.status();
  std::vector<Entry> entries;
  for (const StoredTensor& tensor : file->tensors()) {
    entries.push_back({tensor.name, tensor.dtype, tensor.shape,
                       std::string(reinterpret_cast<const char*>(file->Data(tensor)), tensor.bytes())});
  }
  return entries;
}

void WriteEntries(const std::string& path, const std::vector<Entry>& entries) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const Entry& entry : entries) {
    header[entry.name] = {{"dtype", std::string(NameOf(entry.dtype))},
                          {"shape", entry.shape},
                          {"data_offsets", {data.size(), data.size() + entry.bytes.size()}}};
    data += entry.bytes;
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &length, 8);
  std::ofstream(path, std::ios::binary) << prefix << text << data;
}

void WriteText(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

std::string Golden() { return GoldenPath("pipeline"); }

// A copy of the golden checkpoint that a test may break.
class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    InstallCountingCpuAllocator();
    folder_ = absl::StrCat(testing::TempDir(), "/checkpoint_", getpid(), "_",
                           testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(Golden(), folder_, std::filesystem::copy_options::recursive);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return absl::StrCat(folder_, "/", name); }

  absl::Status Read() const { return ReadCheckpoint(folder_).status(); }

  void Change(const std::string& name, const std::function<void(std::vector<Entry>&)>& change) {
    std::vector<Entry> entries = ReadEntries(Path(name));
    change(entries);
    WriteEntries(Path(name), entries);
  }

  // Splits the UNet's file into shards with an index, as diffusers writes them.
  void Shard(const std::string& variant, const std::string& index) {
    const std::vector<Entry> entries = ReadEntries(Path(kUnetFile));
    std::vector<Entry> shards[2];
    nlohmann::json map;
    for (size_t i = 0; i < entries.size(); ++i) {
      shards[i % 2].push_back(entries[i]);
      map[entries[i].name] = ShardName(variant, i % 2);
    }
    for (int i = 0; i < 2; ++i) {
      WriteEntries(Path("unet/" + ShardName(variant, i)), shards[i]);
    }
    WriteText(Path("unet/" + index), nlohmann::json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump());
    std::filesystem::remove(Path(kUnetFile));
  }

  static std::string ShardName(const std::string& variant, size_t i) {
    return absl::StrCat("diffusion_pytorch_model", variant, "-0000", i + 1, "-of-00002.safetensors");
  }

  // Whether the UNet read from the folder has every tensor of the golden file, bit for bit, and no
  // other.
  void ExpectGoldenUnet() {
    auto checkpoint = ReadCheckpoint(folder_);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    for (const Entry& entry : ReadEntries(absl::StrCat(Golden(), "/", kUnetFile))) {
      const at::Tensor tensor = checkpoint->unet.Take(entry.name, entry.shape);
      ASSERT_EQ(tensor.nbytes(), entry.bytes.size()) << entry.name;
      EXPECT_EQ(std::memcmp(tensor.const_data_ptr(), entry.bytes.data(), entry.bytes.size()), 0) << entry.name;
    }
    EXPECT_TRUE(checkpoint->unet.CheckComplete().ok()) << checkpoint->unet.CheckComplete();
  }

  std::string folder_;
};

TEST_F(CheckpointTest, ReadsConfigsAndWeightsAsStored) {
  const auto checkpoint = ReadCheckpoint(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->model_index["force_zeros_for_empty_prompt"], true);
  EXPECT_EQ(checkpoint->unet_config["cross_attention_dim"], 24);
  EXPECT_EQ(checkpoint->vae_config["scaling_factor"], 0.13025);
  EXPECT_EQ(checkpoint->text_encoder_config["hidden_act"], "quick_gelu");
  EXPECT_EQ(checkpoint->text_encoder_2_config["hidden_act"], "gelu");
  EXPECT_EQ(checkpoint->scheduler_config["steps_offset"], 1);
  EXPECT_TRUE(std::filesystem::exists(checkpoint->tokenizer_2_folder + "/vocab.json"));
  EXPECT_TRUE(checkpoint->unet.Has("conv_in.weight"));
  EXPECT_TRUE(checkpoint->vae.Has("decoder.conv_in.weight"));
  EXPECT_TRUE(checkpoint->text_encoder_2.Has("text_projection.weight"));
  ExpectGoldenUnet();
}

TEST_F(CheckpointTest, HoldsTheStoredBytesOnce) {
  int64_t stored = 0;
  for (const char* name :
       {kUnetFile, kTextFile, "text_encoder_2/model.safetensors", "vae/diffusion_pytorch_model.safetensors"}) {
    for (const Entry& entry : ReadEntries(Path(name))) {
      stored += absl::EndsWith(entry.name, ".position_ids") ? 0 : static_cast<int64_t>(entry.bytes.size());
    }
  }
  const int64_t before = GetMemoryStats(c10::kCPU).allocated;
  {
    const auto checkpoint = ReadCheckpoint(folder_);
    ASSERT_TRUE(checkpoint.ok());
    EXPECT_EQ(GetMemoryStats(c10::kCPU).allocated - before, stored);
  }
  EXPECT_EQ(GetMemoryStats(c10::kCPU).allocated, before);
}

TEST_F(CheckpointTest, ItsHashFollowsTheWeightFiles) {
  Sha256 hash;
  const auto add = [&hash](const std::string& line) { hash.Update((line + "\n").data(), line.size() + 1); };
  for (const std::string component : {"text_encoder", "text_encoder_2", "unet", "vae"}) {
    add(component);
    const char* stem = absl::StartsWith(component, "text") ? "/model" : "/diffusion_pytorch_model";
    add(SafetensorsFile::ReadFile(Path(component + stem + ".safetensors"), uint64_t{1} << 30)->sha256());
  }
  const std::string expected = hash.HexDigest();
  EXPECT_EQ(ReadCheckpoint(folder_)->sha256, expected);
  Change("vae/diffusion_pytorch_model.safetensors", [](std::vector<Entry>& entries) { entries[0].bytes[0] ^= 1; });
  EXPECT_NE(ReadCheckpoint(folder_)->sha256, expected);
}

TEST_F(CheckpointTest, ReadsTheHalfSpelling) {
  std::filesystem::rename(Path(kUnetFile), Path("unet/diffusion_pytorch_model.fp16.safetensors"));
  ExpectGoldenUnet();
}

TEST_F(CheckpointTest, PrefersThePlainSpelling) {
  WriteText(Path("unet/diffusion_pytorch_model.fp16.safetensors"), "broken");
  WriteText(Path("unet/diffusion_pytorch_model.safetensors.index.json"), "broken");
  ExpectGoldenUnet();
}

TEST_F(CheckpointTest, ReadsShards) {
  Shard("", "diffusion_pytorch_model.safetensors.index.json");
  ExpectGoldenUnet();
}

TEST_F(CheckpointTest, ReadsShardsOfTheHalfSpelling) {
  Shard(".fp16", "diffusion_pytorch_model.safetensors.index.fp16.json");
  ExpectGoldenUnet();
}

TEST_F(CheckpointTest, NamesShardsThatAreMissingOrDisagreeWithTheIndex) {
  Shard("", "diffusion_pytorch_model.safetensors.index.json");
  const std::string second = "unet/" + ShardName("", 1);
  const std::vector<Entry> entries = ReadEntries(Path(second));
  WriteEntries(Path(second), std::vector<Entry>(entries.begin() + 1, entries.end()));
  EXPECT_THAT(Read().message(), AllOf(HasSubstr(second), HasSubstr(entries[0].name)));
  std::filesystem::remove(Path(second));
  EXPECT_THAT(Read().message(), AllOf(HasSubstr(second), HasSubstr("missing")));
}

TEST_F(CheckpointTest, RefusesIndexesThatLeaveTheFolder) {
  std::filesystem::remove(Path(kUnetFile));
  const std::string index = "unet/diffusion_pytorch_model.safetensors.index.json";
  for (const char* text : {R"({"weight_map":{"a":"../vae/diffusion_pytorch_model.safetensors"}})",
                           R"({"weight_map":{"a":1}})", R"({"weight_map":{"a":"model.bin"}})"}) {
    WriteText(Path(index), text);
    EXPECT_EQ(Read().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(Read().message(), AllOf(HasSubstr(index), HasSubstr("for a"))) << text;
  }
  WriteText(Path(index), "{}");
  EXPECT_THAT(Read().message(), HasSubstr("no weight_map"));
}

TEST_F(CheckpointTest, AcceptsTextEncoderKeysWithAndWithoutPrefix) {
  const std::string key = "text_model.encoder.layers.0.self_attn.q_proj.weight";
  std::vector<Entry> entries = ReadEntries(Path(kTextFile));
  const bool prefixed = absl::StartsWith(entries[0].name, "text_model.");
  for (const bool prefix : {true, false}) {
    Change(kTextFile, [&](std::vector<Entry>& changed) {
      changed = entries;
      for (Entry& entry : changed) {
        const std::string bare = prefixed ? entry.name.substr(11) : entry.name;
        entry.name = prefix ? "text_model." + bare : bare;
      }
      const std::string ids = prefix ? "text_model.embeddings.position_ids" : "embeddings.position_ids";
      changed.push_back({ids, StoredDtype::kI64, {1, 2}, std::string(16, '\0')});
    });
    const auto checkpoint = ReadCheckpoint(folder_);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_TRUE(checkpoint->text_encoder.Has(key));
    EXPECT_TRUE(checkpoint->text_encoder.Has("text_model.embeddings.token_embedding.weight"));
    EXPECT_TRUE(checkpoint->text_encoder.Has("text_model.final_layer_norm.bias"));
    EXPECT_FALSE(checkpoint->text_encoder.Has("text_model.embeddings.position_ids"));
  }
  Change(kTextFile, [&](std::vector<Entry>& changed) {
    changed.push_back(changed[0]);
    changed.back().name = "text_model." + changed[0].name;
  });
  EXPECT_THAT(Read().message(), AllOf(HasSubstr(kTextFile), HasSubstr("second time")));
}

TEST_F(CheckpointTest, NamesWhatIsMissingBrokenOrOfAnotherKind) {
  const auto expect = [&](absl::StatusCode code, const std::string& what) {
    const absl::Status status = Read();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(status.message(), HasSubstr(what));
  };
  const auto kPrecondition = absl::StatusCode::kFailedPrecondition;
  WriteText(Path("vae/config.json"), "{\"a\": tru}");
  expect(kPrecondition, "vae/config.json is not JSON");
  WriteText(Path("vae/config.json"), "[]");
  expect(kPrecondition, "vae/config.json is not a JSON object");
  std::filesystem::remove(Path("vae/config.json"));
  expect(kPrecondition, "vae/config.json is missing");
  WriteText(Path("vae/config.json"), "{}");
  EXPECT_TRUE(Read().ok());
  const std::string unet = "unet/diffusion_pytorch_model.safetensors";
  Change(unet, [](std::vector<Entry>& entries) { entries[0].dtype = StoredDtype::kI16; });
  expect(kPrecondition, "dtype I16");
  WriteText(Path(unet), "short");
  expect(absl::StatusCode::kDataLoss, unet);
  std::filesystem::remove(Path(unet));
  expect(kPrecondition, unet + " is missing");
  std::filesystem::remove(Path("tokenizer_2/merges.txt"));
  expect(kPrecondition, "tokenizer_2/merges.txt is missing");
  WriteText(Path("model_index.json"), R"({"_class_name":"FluxPipeline"})");
  expect(kPrecondition, "FluxPipeline");
  WriteText(Path("model_index.json"), "{}");
  expect(kPrecondition, "_class_name");
  std::filesystem::remove_all(folder_);
  expect(kPrecondition, "model_index.json is missing");
}

TEST(ComponentWeightsTest, ReportsEveryFaultAtOnce) {
  absl::flat_hash_map<std::string, at::Tensor> tensors;
  tensors["good"] = at::ones({2, 3}, at::kHalf);
  tensors["bent"] = at::ones({4});
  for (int i = 10; i < 35; ++i) {
    tensors[absl::StrCat("more.", i)] = at::ones({1});
  }
  ComponentWeights weights("unet", std::move(tensors));
  EXPECT_TRUE(weights.Has("good"));
  const at::Tensor good = weights.Take("good", {2, 3});
  EXPECT_EQ(good.scalar_type(), at::kHalf);
  EXPECT_FALSE(weights.Has("good"));
  EXPECT_TRUE(at::equal(weights.Take("bent", {2, 2}), at::zeros({2, 2})));
  EXPECT_TRUE(at::equal(weights.Take("gone", {5}), at::zeros({5})));
  const absl::Status status = weights.CheckComplete();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "weights of unet do not fit its config: missing 1: gone; surplus 25: more.10, more.11, "
            "more.12, more.13, "
            "more.14, more.15, more.16, more.17, more.18, more.19, more.20, more.21, more.22, "
            "more.23, more.24, more.25, "
            "more.26, more.27, more.28, more.29, and 5 more; wrong shape 1: bent is [4], expected "
            "[2, 2]");
}

TEST(ComponentWeightsTest, CompleteWhenAllIsTaken) {
  ComponentWeights weights("vae", {{"a", at::ones({1})}});
  EXPECT_FALSE(weights.CheckComplete().ok());
  weights.Take("a", {1});
  EXPECT_TRUE(weights.CheckComplete().ok());
}

}  // namespace
}  // namespace hotlora
