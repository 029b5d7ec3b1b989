// Golden outputs of UNet and text encoders under adapters, made with diffusers and PEFT, or where those are wrong
// (kohya files with several alphas, LyCORIS formats, DoRA) with the formula; tests/golden/adapters/manifest.json says
// which.

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/pipeline/pipeline_fixture.h"
#include "tests/sdxl/weight_checksum.h"

namespace hotlora {
namespace {

constexpr char kFolder[] = "adapters/";

nlohmann::json Manifest() {
  std::ifstream stream(GoldenPath(std::string(kFolder) + "manifest.json"));
  return nlohmann::json::parse(stream);
}

std::string NameOf(const nlohmann::json& adapter) {
  const std::string file = adapter.at("file");  // "files/NAME.safetensors"
  return file.substr(6, file.size() - 6 - std::string(".safetensors").size());
}

class AdaptersGoldenTest : public PipelineFixture {
 protected:
  void SetUp() override {
    PipelineFixture::SetUp();
    inputs_ = LoadTensors(GoldenPath(std::string(kFolder) + "inputs.safetensors"));
  }

  // What the networks put out now, by the manifest's names.
  TensorMap Outputs() {
    const c10::Device device = model_->place().device;
    const at::Tensor sample = inputs_.at("sample").to(device);
    const at::Tensor timesteps = inputs_.at("timestep").to(at::kFloat).to(device).expand({sample.size(0)}).contiguous();
    TensorMap outputs;
    c10::InferenceMode guard;
    outputs["unet_output"] = model_->unet().forward({sample, timesteps, inputs_.at("encoder_hidden_states").to(device),
                                                     inputs_.at("text_embeds").to(device),
                                                     inputs_.at("time_ids").to(at::kFloat).to(device)});
    const TextEncoding first = model_->text_encoder().forward(inputs_.at("input_ids"), 0);
    const TextEncoding second = model_->text_encoder_2().forward(inputs_.at("input_ids_2"), 0);
    outputs["hidden_state_penultimate"] = first.hidden;
    outputs["hidden_state_penultimate_2"] = second.hidden;
    outputs["pooled_2"] = second.pooled;
    return outputs;
  }

  void ExpectOutputs(const nlohmann::json& golden, const std::string& suffix, const std::string& what) {
    const TensorMap expected = LoadTensors(GoldenPath(kFolder + golden.at("expected").get<std::string>()));
    int compared = 0;
    for (const auto& [name, tensor] : Outputs()) {
      const std::string key = name + suffix;
      if (expected.count(key) != 0) {
        ExpectWithin(tensor, expected.at(key), golden.at("tolerance").at(key).at("absolute"), what + " " + key);
        ++compared;
      }
    }
    EXPECT_GT(compared, 0) << what;
  }

  TensorMap inputs_;
};

TEST_F(AdaptersGoldenTest, EachAdapterAtBothScalesAndGoneAfterwards) {
  const TensorMap before = Outputs();
  const std::string live = LiveWeightsChecksum(model_->adaptable_weights());
  const nlohmann::json manifest = Manifest();
  int singles = 0;
  for (const nlohmann::json& golden : manifest.at("cases")) {
    if (golden.at("adapters").size() != 1) {
      continue;
    }
    ++singles;
    const std::string name = golden.at("name");
    for (const auto& [scale, suffix] : {std::pair{1.0, "_scale_1.0"}, {0.6, "_scale_0.6"}}) {
      ASSERT_TRUE(pipeline_->Apply(Set({{NameOf(golden.at("adapters")[0]), scale}}), ApplyMode::kMerged).ok()) << name;
      ExpectOutputs(golden, suffix, name);
    }
    ASSERT_TRUE(pipeline_->Apply({}, ApplyMode::kMerged).ok());
    EXPECT_EQ(LiveWeightsChecksum(model_->adaptable_weights()), live) << "after " << name;
  }
  EXPECT_EQ(singles, 25);
  for (const auto& [name, tensor] : Outputs()) {
    EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
    ExpectWithin(tensor, inputs_.at(name + "_without_adapter"), 5e-5, name + " without adapter");
  }
}

class InterpolatedDoraGoldenTest : public AdaptersGoldenTest {
 protected:
  InterpolatedDoraGoldenTest() { dora_ = DoraWeighting::kInterpolated; }
};

TEST_F(InterpolatedDoraGoldenTest, WeightsInterpolate) {
  const nlohmann::json manifest = Manifest();
  int compared = 0;
  for (const nlohmann::json& golden : manifest.at("cases")) {
    if (!golden.at("tolerance").contains("unet_output_scale_0.6_interpolated")) {
      continue;
    }
    const std::string name = NameOf(golden.at("adapters")[0]);
    ASSERT_TRUE(pipeline_->Apply(Set({{name, 1.0}}), ApplyMode::kMerged).ok());
    ExpectOutputs(golden, "_scale_1.0", name);
    ASSERT_TRUE(pipeline_->Apply(Set({{name, 0.6}}), ApplyMode::kMerged).ok());
    ExpectOutputs(golden, "_scale_0.6_interpolated", name);
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

TEST_F(AdaptersGoldenTest, MixesOfAdapters) {
  const nlohmann::json manifest = Manifest();
  int mixes = 0;
  for (const nlohmann::json& golden : manifest.at("cases")) {
    if (golden.at("adapters").size() < 2) {
      continue;
    }
    std::vector<std::pair<std::string, double>> adapters;
    for (const nlohmann::json& adapter : golden.at("adapters")) {
      adapters.emplace_back(NameOf(adapter), adapter.at("scale"));
    }
    ASSERT_TRUE(pipeline_->Apply(Set(adapters), ApplyMode::kMerged).ok());
    ExpectOutputs(golden, "", golden.at("name"));
    ++mixes;
  }
  EXPECT_EQ(mixes, 3);
}

}  // namespace
}  // namespace hotlora
