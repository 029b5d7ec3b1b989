#include "src/sdxl/sdxl_model.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/nn/packed_weight.h"
#include "src/sdxl/module_list.h"
#include "tests/golden_support.h"
#include "tests/sdxl/model_fixture.h"
#include "tests/sdxl/weight_checksum.h"

namespace hotlora {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const char* Folder(Component component) {
  switch (component) {
    case Component::kTextEncoder:
      return "text_encoder/model";
    case Component::kTextEncoder2:
      return "text_encoder_2/model";
    case Component::kUnet:
      return "unet/diffusion_pytorch_model";
  }
  return "";
}

// A copy of the tiny checkpoint that a test may damage; removed when the test ends.
class CheckpointCopy {
 public:
  CheckpointCopy() : folder_(absl::StrCat(testing::TempDir(), "/sdxl_model_test.", getpid())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(TinyCheckpoint(), folder_, std::filesystem::copy_options::recursive);
    std::filesystem::permissions(folder_, std::filesystem::perms::owner_all);
  }
  ~CheckpointCopy() { std::filesystem::remove_all(folder_); }

  const std::string& folder() const { return folder_; }

  void EditConfig(const std::string& file, const nlohmann::json& changes) {
    const std::string path = folder_ + "/" + file;
    nlohmann::json config = nlohmann::json::parse(std::ifstream(path));
    config.update(changes);
    std::filesystem::remove(path);
    std::ofstream(path) << config;
  }

 private:
  std::string folder_;
};

// The files of a load are one set: a change of any of them while it runs is an error that names it.
TEST(SdxlModelTest, AFileThatChangesDuringTheLoadFailsItByName) {
  const CheckpointCopy copy;
  for (const char* const name :
       {"unet/config.json", "tokenizer/vocab.json", "vae/diffusion_pytorch_model.safetensors"}) {
    const std::string path = copy.folder() + "/" + name;
    std::atomic<bool> done = false;
    std::thread changer([&path, &done] {
      auto time = std::filesystem::last_write_time(path);
      while (!done) {
        std::filesystem::last_write_time(path, time += std::chrono::seconds(1));
      }
    });
    const absl::Status status = SdxlModel::Load(copy.folder(), {c10::kCPU, at::kFloat}).status();
    done = true;
    changer.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(GetErrorDetails(status).reason, "MODEL_CHANGED");
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  }
  const auto model = SdxlModel::Load(copy.folder(), {c10::kCPU, at::kFloat});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE((*model)->files().CheckUnchanged().ok());
}

TEST(SdxlModelTest, EveryParameterButEmbeddingsIsAdaptable) {
  // The files are the independent source.
  std::set<std::string> expected, actual;
  std::map<std::string, at::Tensor> stored;
  for (const Component component : {Component::kTextEncoder, Component::kTextEncoder2, Component::kUnet}) {
    const std::string file = Folder(component);
    for (const auto& [name, tensor] : LoadTensors(TinyCheckpoint() + "/" + file + ".safetensors")) {
      if (name.find("embeddings.") == std::string::npos) {
        expected.insert(file + ":" + name);
      }
      stored[file + ":" + name] = tensor;
    }
  }
  const SdxlModel& model = TinyModel();
  ASSERT_EQ(model.modules().modules.size(), model.adaptable_weights().size());
  for (size_t i = 0; i < model.modules().modules.size(); ++i) {
    const AdaptableModule& module = model.modules().modules[i];
    const AdaptableWeight& weight = model.adaptable_weights()[i];
    const std::string path = std::string(Folder(module.component)) + ":" + module.path;
    const std::string name = path + (module.is_bias ? ".bias" : ".weight");
    EXPECT_TRUE(actual.insert(name).second) << name << " is listed twice";
    ASSERT_EQ(stored.count(name), 1u) << name;
    EXPECT_EQ(module.shape, stored.at(name).sizes().vec()) << name;
    EXPECT_EQ(module.bias.has_value(), !module.is_bias && stored.count(path + ".bias") == 1) << name;
    EXPECT_EQ(weight.clean.scalar_type(), at::kHalf) << name;
    EXPECT_TRUE(at::equal(weight.clean.cpu(), stored.at(name))) << name;
    EXPECT_EQ(weight.live.scalar_type(), at::kFloat) << name;
    EXPECT_TRUE(IsCopyOf(weight.live, weight.clean)) << name;
  }
  EXPECT_EQ(actual, expected);
}

TEST(SdxlModelTest, ModuleListIsTheTableOfTheNetworks) {
  const auto lines = [](const ModuleTable& table) {
    std::set<std::string> entries;
    for (const AdaptableModule& module : table.modules) {
      std::string line = std::string(NameOf(module.component)) + ":" + module.path;
      line += module.is_bias ? ".bias" : module.bias.has_value() ? ".weight with bias" : ".weight";
      for (const int64_t size : module.shape) {
        line += " " + std::to_string(size);
      }
      EXPECT_TRUE(entries.insert(line).second) << line;
      if (module.bias.has_value()) {
        const AdaptableModule& bias = table.modules.at(*module.bias);
        EXPECT_TRUE(bias.is_bias && bias.path == module.path && bias.component == module.component) << line;
      }
    }
    return entries;
  };
  const absl::StatusOr<ModuleTable> list = ReadModuleList(TinyCheckpoint());
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(lines(*list), lines(TinyModel().modules()));
  EXPECT_EQ(list->unet_layers_per_block, TinyModel().modules().unet_layers_per_block);
}

TEST(SdxlModelTest, TableGoesByComponentThenNetworkOrder) {
  const std::vector<AdaptableModule>& modules = TinyModel().modules().modules;
  EXPECT_TRUE(std::is_sorted(modules.begin(), modules.end(), [](const AdaptableModule& a, const AdaptableModule& b) {
    return static_cast<int>(a.component) < static_cast<int>(b.component);
  }));
  EXPECT_EQ(modules.front().path, "text_model.encoder.layers.0.layer_norm1");
  EXPECT_EQ(modules.back().path, "conv_out");
  EXPECT_EQ(TinyModel().modules().unet_layers_per_block, 2);
}

// Everything the adaptable weights shape, in one vector.
at::Tensor OutputOf(const SdxlModel& model, Component component) {
  const c10::Device device = TestPlace().device;
  if (component == Component::kUnet) {
    TensorMap t = GoldenFolder("unet").Load("unet_0");
    return model.unet().forward({t.at("sample").to(device), t.at("timestep").expand({1}).to(device),
                                 t.at("encoder_hidden_states").to(device), t.at("text_embeds").to(device),
                                 t.at("time_ids").to(device)});
  }
  TensorMap t = GoldenFolder("text_encoder").Load("encoders_1");
  const bool first = component == Component::kTextEncoder;
  const TextEncoder& encoder = first ? model.text_encoder() : model.text_encoder_2();
  const TextEncoding encoding = encoder.forward(t.at(first ? "input_ids" : "input_ids_2"), 0);
  return first ? encoding.hidden : at::cat({encoding.hidden.flatten(), encoding.pooled.flatten()});
}

TEST(SdxlModelTest, EveryLiveWeightIsWhatItsNetworkUses) {
  c10::InferenceMode guard;
  absl::StatusOr<std::unique_ptr<SdxlModel>> loaded = SdxlModel::Load(TinyCheckpoint(), TestPlace());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const SdxlModel& model = **loaded;
  std::map<Component, at::Tensor> before;
  for (size_t i = 0; i < model.modules().modules.size(); ++i) {
    const AdaptableModule& module = model.modules().modules[i];
    // SDXL takes the state before the first encoder's last layer. A key's bias moves all scores of a row alike.
    const bool unused =
        module.component == Component::kTextEncoder && (module.path.find("layers.2.") != std::string::npos ||
                                                        module.path.find("final_layer_norm") != std::string::npos);
    if (unused || (module.is_bias && module.path.find("k_proj") != std::string::npos)) {
      continue;
    }
    if (before.count(module.component) == 0) {
      before[module.component] = OutputOf(model, module.component);
    }
    at::Tensor live = model.adaptable_weights()[i].live;
    live.mul_(1.5).add_(0.25);
    EXPECT_FALSE(at::equal(OutputOf(model, module.component), before[module.component])) << module.path;
    CopyWeight(model.adaptable_weights()[i].clean, live);
  }
  for (const auto& [component, output] : before) {
    EXPECT_TRUE(at::equal(OutputOf(model, component), output)) << "the clean weights give another";
  }
}

TEST(SdxlModelTest, ChecksumsSeeASingleBit) {
  c10::InferenceMode guard;
  absl::StatusOr<std::unique_ptr<SdxlModel>> model = SdxlModel::Load(TinyCheckpoint(), TestPlace());
  ASSERT_TRUE(model.ok()) << model.status();
  const absl::Span<const AdaptableWeight> weights = (*model)->adaptable_weights();
  const std::string clean = CleanWeightsChecksum(weights), live = LiveWeightsChecksum(weights);
  EXPECT_EQ(clean, CleanWeightsChecksum(TinyModel().adaptable_weights()));
  EXPECT_EQ(live, LiveWeightsChecksum(TinyModel().adaptable_weights()));
  at::Tensor bits = weights[weights.size() / 2].live.view(at::kInt);
  bits.select(0, 0).bitwise_xor_(1);
  EXPECT_EQ(CleanWeightsChecksum(weights), clean);
  EXPECT_NE(LiveWeightsChecksum(weights), live);
  CopyWeight(weights[weights.size() / 2].clean, weights[weights.size() / 2].live);
  EXPECT_EQ(LiveWeightsChecksum(weights), live);
}

TEST(SdxlModelTest, KnowsItsCheckpoint) {
  const SdxlModel& model = TinyModel();
  EXPECT_EQ(model.sha256().size(), 64u);
  EXPECT_EQ(model.config().native_size(), 128);
  EXPECT_EQ(model.scheduler_config().at("num_train_timesteps"), 1000);
}

TEST(SdxlModelTest, SingleFileIsTheSameModelAsItsFolder) {
  CheckpointSource source(SingleFilePath());
  source.model_config = TinyCheckpoint();
  absl::StatusOr<std::unique_ptr<SdxlModel>> model = SdxlModel::Load(source, TestPlace());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(CleanWeightsChecksum((*model)->adaptable_weights()), CleanWeightsChecksum(TinyModel().adaptable_weights()));
  EXPECT_EQ(LiveWeightsChecksum((*model)->adaptable_weights()), LiveWeightsChecksum(TinyModel().adaptable_weights()));
  EXPECT_EQ((*model)->scheduler_config(), TinyModel().scheduler_config());
  EXPECT_NE((*model)->sha256(), TinyModel().sha256());
}

TEST(SdxlModelTest, SingleFileNeedsNoTokenizers) {
  CheckpointCopy copy;
  std::filesystem::remove_all(copy.folder() + "/tokenizer");
  std::filesystem::remove_all(copy.folder() + "/tokenizer_2");
  CheckpointSource source(SingleFilePath());
  source.model_config = copy.folder();
  absl::StatusOr<std::unique_ptr<SdxlModel>> model = SdxlModel::Load(source, TestPlace());
  ASSERT_TRUE(model.ok()) << model.status();
  for (const char* text : {"a photo of 2 cats!", "", "Größe"}) {
    EXPECT_EQ(*(*model)->tokenizer().EncodePaddedForTest(text), *TinyModel().tokenizer().EncodePaddedForTest(text))
        << text;
    EXPECT_EQ(*(*model)->tokenizer_2().EncodePaddedForTest(text), *TinyModel().tokenizer_2().EncodePaddedForTest(text))
        << text;
  }
}

TEST(SdxlModelTest, ListsFaultsOfAllComponentsAtOnce) {
  CheckpointCopy copy;
  copy.EditConfig("text_encoder/config.json", {{"num_hidden_layers", 4}});
  copy.EditConfig("unet/config.json", {{"transformer_layers_per_block", {1, 1, 1}}});
  copy.EditConfig("vae/config.json", {{"layers_per_block", 3}});
  absl::StatusOr<std::unique_ptr<SdxlModel>> model = SdxlModel::Load(copy.folder(), TestPlace());
  ASSERT_EQ(model.status().code(), absl::StatusCode::kFailedPrecondition) << model.status();
  EXPECT_THAT(std::string(model.status().message()),
              AllOf(HasSubstr("text_model.encoder.layers.3."), HasSubstr("transformer_blocks.1."),
                    HasSubstr("decoder.up_blocks.0.resnets.3.")));
}

TEST(SdxlModelTest, RefusesATokenizerLargerThanItsEncodersTable) {
  CheckpointCopy copy;
  copy.EditConfig("text_encoder_2/config.json", {{"vocab_size", 49407}});
  absl::StatusOr<std::unique_ptr<SdxlModel>> model = SdxlModel::Load(copy.folder(), TestPlace());
  ASSERT_EQ(model.status().code(), absl::StatusCode::kFailedPrecondition) << model.status();
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("tokenizer_2 has 49408 tokens"));
}

TEST(SdxlModelTest, NamesTensorsOfAnotherShape) {
  CheckpointCopy copy;
  copy.EditConfig("text_encoder/config.json", {{"intermediate_size", 64}});
  absl::StatusOr<std::unique_ptr<SdxlModel>> model = SdxlModel::Load(copy.folder(), TestPlace());
  ASSERT_EQ(model.status().code(), absl::StatusCode::kFailedPrecondition) << model.status();
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("mlp.fc1.weight"));
}

}  // namespace
}  // namespace hotlora
