#include "src/weights/checkpoint.h"

#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

// Of several, the most precise.
TEST_F(CheckpointTest, ReadsEachVariant) {
  std::string file = Path(kUnetFile);
  for (const char* const variant : {".bf16", ".fp16", ".fp32", ""}) {
    const std::string next = Path(absl::StrCat("unet/diffusion_pytorch_model", variant, ".safetensors"));
    std::filesystem::rename(file, next);
    if (file != Path(kUnetFile)) {
      WriteText(file, "broken");
    }
    ExpectGoldenUnet();
    file = next;
  }
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

// https://github.com/huggingface/diffusers/pull/8869: the index's name has changed.
TEST_F(CheckpointTest, ReadsShardsOfEachVariant) {
  const std::string unet = Path(kUnetFile);
  std::filesystem::copy(unet, Path("aside"));
  for (const char* const variant : {"fp32", "fp16", "bf16"}) {
    for (const std::string& index : {absl::StrCat("diffusion_pytorch_model.safetensors.index.", variant, ".json"),
                                     absl::StrCat("diffusion_pytorch_model.", variant, ".safetensors.index.json")}) {
      Shard(absl::StrCat(".", variant), index);
      ExpectGoldenUnet();
      std::filesystem::remove(Path("unet/" + index));
      EXPECT_THAT(Read().message(), HasSubstr("unet/diffusion_pytorch_model.safetensors is missing"));
      std::filesystem::copy(Path("aside"), unet);
    }
  }
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
    EXPECT_THAT(Read().message(), AllOf(HasSubstr(index), HasSubstr("weight_map of a is"))) << text;
  }
  WriteText(Path(index), "{}");
  EXPECT_THAT(Read().message(), HasSubstr("weight_map is missing"));
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

// What programs leave in a folder, and what no program is known to leave.
TEST_F(CheckpointTest, PassesOverLeftoversAndNamesTheRest) {
  const struct {
    const char *file, *tensor;
    bool leftover;
  } cases[] = {
      // https://github.com/smthemex/ComfyUI_StoryDiffusion/issues/78: CLIPTextModelWithProjection
      {kTextFile, "text_projection.weight", true},
      {kTextFile, "text_model.embeddings.position_ids", true},
      {kTextFile, "logit_scale", true},
      {kTextFile, "vision_model.embeddings.class_embedding", true},
      {kTextFile, "visual_projection.weight", true},
      {kTextFile, "text_projection.bias", false},
      {kTextFile, "text_model.embeddings.extra.weight", false},
      {"text_encoder_2/model.safetensors", "logit_scale", true},
      {"text_encoder_2/model.safetensors", "text_model.embeddings.position_ids", true},
      {"text_encoder_2/model.safetensors", "text_projection.bias", false},
      {"vae/diffusion_pytorch_model.safetensors", "loss.logvar", true},
      {"vae/diffusion_pytorch_model.safetensors", "loss.discriminator.main.0.weight", true},
      {"vae/diffusion_pytorch_model.safetensors", "model_ema.decay", true},
      {"vae/diffusion_pytorch_model.safetensors", "quantize.embedding.weight", false},
      {kUnetFile, "time_embedding.cond_proj.weight", false},
      {kUnetFile, "position_ids", false},
      {kUnetFile, "loss.logvar", false},
  };
  for (const auto& [file, name, leftover] : cases) {
    const std::vector<Entry> sound = ReadEntries(Path(file));
    std::vector<Entry> changed = sound;
    changed.push_back({name, StoredDtype::kI64, {1, 2}, std::string(16, '\0')});
    if (!leftover) {
      changed.back() = {name, StoredDtype::kF16, {1, 8}, std::string(16, '\0')};
    }
    WriteEntries(Path(file), changed);
    auto read = ReadCheckpoint(folder_);
    ASSERT_TRUE(read.ok()) << name << ": " << read.status();
    const std::string component = std::string(file).substr(0, std::string(file).find('/'));
    ComponentWeights& weights = component == "text_encoder"     ? read->text_encoder
                                : component == "text_encoder_2" ? read->text_encoder_2
                                : component == "vae"            ? read->vae
                                                                : read->unet;
    for (const Entry& entry : sound) {
      weights.Take(entry.name, entry.shape);
    }
    EXPECT_EQ(weights.CheckComplete().ok(), leftover) << name << ": " << weights.CheckComplete();
    if (!leftover) {
      EXPECT_THAT(weights.CheckComplete().message(), HasSubstr(absl::StrCat("surplus 1: ", name)));
    }
    WriteEntries(Path(file), sound);
  }
}

// The same modules, saved by another of diffusers' pipelines.
TEST_F(CheckpointTest, ReadsFoldersOfTheOtherPipelinesOfTheSameModules) {
  const struct {
    const char *index, *says;
  } cases[] = {
      {R"({"_class_name": "StableDiffusionXLPipeline"})", ""},
      {R"({"_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": false})", ""},
      {R"({"_class_name": "StableDiffusionXLInpaintPipeline", "a": NaN, "b": -Infinity})", ""},
      {R"({"_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": true})", "refiner"},
      {R"({"_class_name": "StableDiffusionXLPipeline", "requires_aesthetics_score": NaN})",
       "requires_aesthetics_score is \"NaN\", must be true or false"},
      {R"({"_class_name": "StableDiffusionXLPipeline", "requires_aesthetics_score": 1})",
       "aesthetics_score is 1, must"},
      {R"({"_class_name": "StableDiffusionXLPipeline", "requires_aesthetics_score": null})", ""},
      {R"({"_class_name": "StableDiffusionXLControlNetPipeline"})", "_class_name is \"StableDiffusionXLControlNetP"},
      {R"({"_class_name": "FluxPipeline"})", "_class_name is \"FluxPipeline\""},
      {R"({"_class_name": NaN})", "_class_name is \"NaN\""},
      {R"({"_class_name": null})", "_class_name is null"},
      {R"({"_class_name": ["a"]})", "_class_name is [\"a\"]"},
      {"{}", "_class_name is missing"},
  };
  for (const auto& [index, says] : cases) {
    WriteText(Path("model_index.json"), index);
    const absl::Status status = Read();
    if (std::string(says).empty()) {
      EXPECT_TRUE(status.ok()) << status;
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(status.message(), AllOf(HasSubstr("model_index.json"), HasSubstr(says)));
    }
  }
}

// As Python writes them: with a byte-order mark, and with numbers that JSON does not have.
TEST_F(CheckpointTest, ReadsEveryConfigAsPythonWritesIt) {
  for (const char* const name : {"model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
                                 "text_encoder_2/config.json", "scheduler/scheduler_config.json"}) {
    std::ifstream stream(Path(name), std::ios::binary);
    std::string text(std::istreambuf_iterator<char>(stream), {});
    text.insert(text.find('{') + 1,
                R"("n": NaN, "i": [Infinity, {"j": -Infinity}], "big": 1234567890123456789012345,)");
    WriteText(Path(name), "\xEF\xBB\xBF" + text);
  }
  const absl::Status status = Read();
  EXPECT_TRUE(status.ok()) << status;
}

// The depth of a file must not be the depth of a recursion.
TEST_F(CheckpointTest, DeepConfigsAreRefused) {
  const std::string deep = absl::StrCat("{\"a\": ", std::string(1'000'000, '['), std::string(1'000'000, ']'), "}");
  std::string objects;
  for (int i = 0; i < 1'000'000; ++i) {
    objects += "{\"a\":";
  }
  for (const char* const name : {"model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
                                 "text_encoder_2/config.json", "scheduler/scheduler_config.json"}) {
    const std::string copy = Path(name) + ".copy";
    std::filesystem::copy(Path(name), copy);
    for (const std::string& text : {deep, objects}) {
      WriteText(Path(name), text);
      EXPECT_THAT(Read().message(), AllOf(HasSubstr(name), HasSubstr("nests arrays and objects more than 64 deep")));
    }
    std::filesystem::rename(copy, Path(name));
  }
  Shard("", "diffusion_pytorch_model.safetensors.index.json");
  WriteText(Path("unet/diffusion_pytorch_model.safetensors.index.json"), deep);
  EXPECT_THAT(Read().message(), AllOf(HasSubstr("unet/"), HasSubstr("more than 64 deep")));
}

TEST_F(CheckpointTest, NamesOddEntriesOfAnIndex) {
  const std::string index = "diffusion_pytorch_model.safetensors.index.json";
  Shard("", index);
  for (const char* const odd : {"NaN", "-Infinity", "null", "3", "\"../x.safetensors\"", "\"x.bin\"", "[]"}) {
    WriteText(Path("unet/" + index),
              absl::StrCat(R"({"metadata": {"total_size": NaN}, "weight_map": {"conv_in.bias": )", odd, "}}"));
    EXPECT_THAT(Read().message(), AllOf(HasSubstr("unet/" + index), HasSubstr("weight_map of conv_in.bias is")));
  }
  for (const char* const odd : {"NaN", "null", "[]", "{}", "3"}) {
    WriteText(Path("unet/" + index), absl::StrCat(R"({"weight_map": )", odd, "}"));
    EXPECT_THAT(Read().message(), AllOf(HasSubstr("unet/" + index), HasSubstr("weight_map is missing or not")));
  }
}

TEST_F(CheckpointTest, KnowsTheFilesThatItRead) {
  const auto checkpoint = ReadCheckpoint(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->files.CheckUnchanged().ok());
  WriteText(Path("unet/diffusion_pytorch_model.fp16.safetensors"), "not read");
  EXPECT_TRUE(checkpoint->files.CheckUnchanged().ok());
  for (const char* const name : {"model_index.json", "unet/config.json", kUnetFile, kTextFile, "tokenizer/vocab.json",
                                 "scheduler/scheduler_config.json"}) {
    ModelFiles files = checkpoint->files;
    std::filesystem::rename(Path(name), Path("aside"));
    EXPECT_THAT(files.Changed(), testing::ElementsAre(Path(name)));
    WriteText(Path(name), "another");
    EXPECT_THAT(files.Changed(), testing::ElementsAre(Path(name)));
    const absl::Status status = files.CheckUnchanged();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(status.message(), HasSubstr(Path(name)));
    std::filesystem::rename(Path("aside"), Path(name));
    EXPECT_THAT(files.Changed(), testing::IsEmpty());
    const auto time = std::filesystem::last_write_time(Path(name));
    std::filesystem::last_write_time(Path(name), time + std::chrono::milliseconds(1));  // the same size
    EXPECT_THAT(files.Changed(), testing::ElementsAre(Path(name)));
    std::filesystem::last_write_time(Path(name), time);
  }
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
