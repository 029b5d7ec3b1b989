// Runs of 1 to 8 steps with the settings of Turbo, Lightning and LCM models, against diffusers.

#include <unistd.h>

#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

class FewStepsGoldenTest : public PipelineFixture {
 protected:
  // The golden checkpoint with these keys of its scheduler config changed.
  std::unique_ptr<Pipeline> PipelineWith(const nlohmann::json& changed) {
    const std::string folder = testing::TempDir() + "/few_steps_" + std::to_string(getpid());
    std::filesystem::remove_all(folder);
    std::filesystem::copy(GoldenPath("pipeline"), folder, std::filesystem::copy_options::recursive);
    const std::string path = folder + "/scheduler/scheduler_config.json";
    nlohmann::json config = nlohmann::json::parse(std::ifstream(path));
    config.update(changed);
    std::filesystem::permissions(path, std::filesystem::perms::owner_write, std::filesystem::perm_options::add);
    std::ofstream(path) << config;
    auto model = SdxlModel::Load(folder, TestPlace());
    EXPECT_TRUE(model.ok()) << model.status();
    auto pipeline = MakeSdxlPipeline(*std::move(model), "changed");
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    std::filesystem::remove_all(folder);
    return *std::move(pipeline);
  }
};

Sampler SamplerOf(const std::string& name) {
  static const auto* const kSamplers = new std::map<std::string, Sampler>{
      {"SAMPLER_EULER", Sampler::kEuler},      {"SAMPLER_EULER_ANCESTRAL", Sampler::kEulerAncestral},
      {"SAMPLER_HEUN", Sampler::kHeun},        {"SAMPLER_DDIM", Sampler::kDdim},
      {"SAMPLER_DPMPP_2M", Sampler::kDpmpp2M}, {"SAMPLER_UNIPC", Sampler::kUniPc},
      {"SAMPLER_LCM", Sampler::kLcm}};
  return kSamplers->at(name);
}

TEST_F(FewStepsGoldenTest, LatentsEqualTheReference) {
  std::ifstream stream(GoldenPath("few_steps/manifest.json"));
  const nlohmann::json manifest = nlohmann::json::parse(stream);
  const double tolerance = manifest["tolerance"]["relative_to_largest"];
  const TensorMap expected = LoadTensors(GoldenPath("few_steps/latents.safetensors"));
  ASSERT_EQ(manifest["cases"].size(), 20u);
  for (const nlohmann::json& golden : manifest["cases"]) {
    const std::string name = golden["name"];
    std::unique_ptr<Pipeline> kept;
    if (!golden["checkpoint"].empty()) {
      kept = std::exchange(pipeline_, PipelineWith(golden["checkpoint"]));
    }
    ImageRequest request;
    request.prompt = "a photo of a cat";
    request.width = request.height = 64;
    request.steps = golden["steps"].get<uint32_t>();
    request.guidance_scale = golden["guidance_scale"].get<double>();
    request.sampler = SamplerOf(golden["sampler"]);
    request.schedule = golden["trailing"] ? NoiseScheduleKind::kTrailing : NoiseScheduleKind::kDefault;
    const std::unique_ptr<Row> row = Finish(Start(Job(request), {}, 42));
    ExpectWithin(RowLatentsForTest(*row), expected.at(name), tolerance * golden["largest"].get<double>(), name);
    if (kept != nullptr) {
      pipeline_ = std::move(kept);
    }
  }
}

}  // namespace
}  // namespace hotlora
