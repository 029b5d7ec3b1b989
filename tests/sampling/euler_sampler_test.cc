#include "src/sampling/euler_sampler.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/weights/safetensors_file.h"
#include "tests/golden_path.h"

namespace hotlora {
namespace {

nlohmann::json ReadJson(const std::string& name) {
  std::ifstream stream(GoldenPath(name));
  return nlohmann::json::parse(stream);
}

// Whole trajectories of the reference with a stand-in for the network: 0.1 * input + sin(timestep /
// 1000).
class EulerSamplerTest : public testing::TestWithParam<std::string> {
 protected:
  static at::Tensor Golden(const SafetensorsFile& file, const std::string& name) {
    const StoredTensor* const stored = file.Find(name);
    EXPECT_NE(stored, nullptr) << name;
    return at::from_blob(const_cast<std::byte*>(file.Data(*stored)), stored->shape, at::kFloat).clone();
  }

  static void ExpectEqual(const std::vector<float>& values, const at::Tensor& expected, double tolerance) {
    ASSERT_EQ(static_cast<int64_t>(values.size()), expected.numel());
    for (size_t i = 0; i < values.size(); ++i) {
      const float want = expected[static_cast<int64_t>(i)].item<float>();
      EXPECT_LE(std::abs(values[i] - want), tolerance * (1.0 + std::abs(want)))
          << i << ": " << values[i] << " " << want;
    }
  }
};

TEST_P(EulerSamplerTest, FollowsTheReference) {
  const nlohmann::json manifest = ReadJson("schedulers/manifest.json");
  const auto& cases = manifest["cases"];
  const auto found =
      std::find_if(cases.begin(), cases.end(), [](const auto& one) { return one["name"] == GetParam(); });
  ASSERT_NE(found, cases.end());
  nlohmann::json config = ReadJson("pipeline/scheduler/scheduler_config.json");
  config.update((*found)["changed"]);
  const auto parsed = ParseSchedulerConfig(config);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const auto file =
      SafetensorsFile::ReadFile(GoldenPath(absl::StrCat("schedulers/", GetParam(), ".safetensors")), 1 << 20);
  ASSERT_TRUE(file.ok()) << file.status();

  const NoiseSchedule schedule(*parsed);
  ExpectEqual(schedule.alphas_cumprod(), Golden(*file, "alphas_cumprod"), 1e-6);
  int runs = 0;
  for (const auto& [count, run] : (*found)["steps"].items()) {
    SCOPED_TRACE(count);
    const StepPlan plan = schedule.Plan(static_cast<uint32_t>(std::stoul(count)));
    // Exact, except where timesteps come out of logarithms: numpy's float32 logarithm, which the
    // reference uses, is off by a last digit in one value of five, and not on every machine alike.
    ExpectEqual(plan.timesteps, Golden(*file, "timesteps_" + count),
                parsed->sigma_spacing == SigmaSpacing::kTimesteps ? 0.0 : 1e-6);
    ExpectEqual(plan.sigmas, Golden(*file, "sigmas_" + count), (*found)["tolerance"]["sigmas"]["relative"]);
    EXPECT_NEAR(plan.init_noise_sigma, run["init_noise_sigma"], 1e-5 * run["init_noise_sigma"].get<double>());

    EulerSampler sampler(plan);
    const at::Tensor expected = Golden(*file, "samples_" + count);
    const double tolerance = (*found)["tolerance"]["samples"]["relative_to_largest_expected_value"].get<double>() *
                             run["largest_expected_value"].get<double>();
    at::Tensor x = Golden(*file, "start") * sampler.init_noise_sigma();
    for (int64_t i = 0; !sampler.done(); ++i) {
      EXPECT_LE((x - expected[i]).abs().max().item<double>(), tolerance) << i;
      EXPECT_EQ(sampler.steps_done(), i);
      const double t = sampler.timestep();
      x = sampler.Step(x, sampler.ScaleInput(x) * 0.1 + std::sin(t / 1000.0));
    }
    EXPECT_LE((x - expected[-1]).abs().max().item<double>(), tolerance);
    EXPECT_EQ(sampler.steps_done(), sampler.total_steps());
    ++runs;
  }
  EXPECT_EQ(runs, 6);
}

INSTANTIATE_TEST_SUITE_P(Golden, EulerSamplerTest,
                         testing::Values("euler", "euler_karras", "euler_trailing", "euler_v_prediction",
                                         "euler_v_prediction_zero_snr_trailing"),
                         [](const auto& info) { return info.param; });

TEST(EulerSamplerContractTest, LeavesItsArgumentsAndComputesInFloat32) {
  StepPlan plan;
  plan.timesteps = {999.0f, 1.0f};
  plan.sigmas = {3.0f, 1.0f, 0.0f};
  EulerSampler sampler(plan);
  const at::Tensor latents = at::full({1, 1, 1, 1}, 2.0f);
  const at::Tensor output = at::full({1, 1, 1, 1}, 0.5f, at::kBFloat16);
  const at::Tensor next = sampler.Step(latents, output);
  EXPECT_EQ(next.scalar_type(), at::kFloat);
  EXPECT_FLOAT_EQ(next.item<float>(), 1.0f);  // 2 + 0.5 * (1 - 3)
  EXPECT_EQ(latents.item<float>(), 2.0f);
  EXPECT_EQ(sampler.timestep(), 1.0f);
  EXPECT_FLOAT_EQ(sampler.ScaleInput(next).item<float>(), 1.0f / std::sqrt(2.0f));
  EXPECT_FLOAT_EQ(sampler.Step(next, output).item<float>(), 0.5f);
  EXPECT_TRUE(sampler.done());
  EXPECT_THROW(sampler.Step(next, output), c10::Error);
  EXPECT_THROW(sampler.ScaleInput(next), c10::Error);
}

TEST(EulerSamplerContractTest, RefusesShapesThatDisagree) {
  StepPlan plan;
  plan.timesteps = {1.0f};
  plan.sigmas = {1.0f, 0.0f};
  EulerSampler sampler(plan);
  EXPECT_THROW(sampler.Step(at::zeros({1, 4, 2, 2}), at::zeros({2, 4, 2, 2})), c10::Error);
  EXPECT_EQ(sampler.steps_done(), 0u);
  plan.sigmas.pop_back();
  EXPECT_THROW(EulerSampler{plan}, c10::Error);
}

}  // namespace
}  // namespace hotlora
