// Every sampler under many scheduler configs against diffusers: spacings, predictions, betas, ends.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include <gtest/gtest.h>

#include "src/sampling/ddim_sampler.h"
#include "src/sampling/dpmpp_multistep_sampler.h"
#include "src/sampling/euler_ancestral_sampler.h"
#include "src/sampling/euler_sampler.h"
#include "src/sampling/heun_sampler.h"
#include "src/sampling/lcm_sampler.h"
#include "src/sampling/unipc_sampler.h"
#include "tests/golden_support.h"

namespace hotlora {
namespace {

nlohmann::json ReadJson(const std::string& name) {
  std::ifstream stream(GoldenPath(name));
  return nlohmann::json::parse(stream);
}

std::unique_ptr<SamplerState> MakeSampler(const std::string& name, const NoiseSchedule& schedule, uint32_t steps,
                                          NoiseSource noise) {
  if (name == "euler") {
    return std::make_unique<EulerSampler>(schedule.Plan(steps));
  }
  if (name == "euler_ancestral") {
    return std::make_unique<EulerAncestralSampler>(schedule.Plan(steps), std::move(noise));
  }
  if (name == "heun") {
    return std::make_unique<HeunSampler>(schedule.Plan(steps));
  }
  if (name == "ddim") {
    return std::make_unique<DdimSampler>(schedule.DdimPlan(steps));
  }
  if (name == "dpmpp_2m") {
    return std::make_unique<DpmppMultistepSampler>(schedule.MultistepPlan(steps), 2);
  }
  if (name == "dpmpp_2m_sde") {
    return std::make_unique<DpmppMultistepSampler>(schedule.MultistepPlan(steps), 2, std::move(noise));
  }
  if (name == "unipc") {
    return std::make_unique<UniPcSampler>(schedule.MultistepPlan(steps));
  }
  TORCH_CHECK(name == "lcm", name);
  return std::make_unique<LcmSampler>(schedule.LcmPlan(steps), std::move(noise));
}

bool HasZeroSnr(const nlohmann::json& changed) { return changed.value("rescale_betas_zero_snr", false); }

// Where we do what the config says and the reference's class lacks the key.
bool IsIgnoredByReference(const std::string& sampler, const nlohmann::json& changed) {
  const bool respaced = changed.value("use_karras_sigmas", false) || changed.value("use_exponential_sigmas", false);
  const bool ends = changed.contains("sigma_min"), final_sigma = changed.contains("final_sigmas_type");
  return (sampler == "euler_ancestral" && (respaced || final_sigma)) ||
         (sampler == "heun" && (HasZeroSnr(changed) || ends || final_sigma)) ||
         ((sampler == "dpmpp_2m" || sampler == "dpmpp_2m_sde") && ends);
}

// With zero terminal SNR abar ends in 2^-24 here, as in the reference's other samplers; in these two it ends in 0.
double ToleranceOf(const std::string& sampler, const nlohmann::json& changed, double usual) {
  return (sampler == "ddim" || sampler == "lcm") && HasZeroSnr(changed) ? 5e-4 : usual;
}

struct Trajectory {
  std::vector<float> timesteps;
  at::Tensor end;
  double largest = 1.0;  // of what any step gave
};

// A step is about eight operations, each off by half an epsilon of the terms it adds.
constexpr double kStepRounding = 8 * 0.5 * std::numeric_limits<float>::epsilon();

// The whole run from x. With `errors`, each step is off by as much as float32 may round it, to a random side: terms as
// large as the latents before it (4096 times the noise at zero terminal SNR) can cancel in what comes after it.
Trajectory Follow(SamplerState& sampler, at::Tensor x, std::mt19937* errors = nullptr) {
  Trajectory run;
  std::uniform_real_distribution<double> part(-1.0, 1.0);
  while (!sampler.done()) {
    run.timesteps.push_back(sampler.timestep());
    const at::Tensor before = x;
    x = sampler.Step(x, sampler.ScaleInput(x) * 0.1 + std::sin(run.timesteps.back() / 1000.0));
    run.largest = std::max(run.largest, x.abs().max().item<double>());
    if (errors != nullptr) {
      const double terms = std::max(before.abs().max().item<double>(), x.abs().max().item<double>());
      for (int64_t i = 0; i < x.numel(); ++i) {
        x.view({-1})[i] += kStepRounding * terms * part(*errors);
      }
    }
  }
  run.end = x.flatten();
  return run;
}

// How far apart the ends of runs may be that round differently.
double SpreadOfRounding(const at::Tensor& end, const std::function<Trajectory(std::mt19937*)>& follow) {
  double spread = 0.0;
  for (const uint32_t seed : {1u, 2u, 3u, 4u}) {
    std::mt19937 errors(seed);
    spread = std::max(spread, (follow(&errors).end - end).abs().max().item<double>());
  }
  return spread;
}

TEST(SchedulerConfigsGoldenTest, EverySamplerFollowsTheConfigAsTheReferenceDoes) {
  const nlohmann::json manifest = ReadJson("scheduler_configs/manifest.json");
  const double tolerance = manifest["tolerance"]["latents"]["relative_to_largest"];
  const TensorMap runs = LoadTensors(GoldenPath("scheduler_configs/runs.safetensors"));
  const nlohmann::json base = ReadJson("pipeline/scheduler/scheduler_config.json");
  int compared = 0, skipped = 0;
  for (const auto& [run, expected] : runs) {
    const std::vector<std::string> parts = absl::StrSplit(run, '/');
    if (parts.size() != 3) {
      continue;  // start, noise
    }
    SCOPED_TRACE(run);
    const nlohmann::json& changed = manifest["variants"][parts[1]];
    if (IsIgnoredByReference(parts[0], changed)) {
      ++skipped;
      continue;
    }
    nlohmann::json config = base;
    config.update(changed);
    const auto parsed = ParseSchedulerConfig(config);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    const NoiseSchedule schedule(*parsed);
    const auto follow = [&, steps = static_cast<uint32_t>(std::stoul(parts[2]))](std::mt19937* errors) {
      int64_t drawn = 0;
      const auto sampler = MakeSampler(parts[0], schedule, steps,
                                       [&](c10::IntArrayRef) { return runs.at("noise")[drawn++].unsqueeze(0); });
      return Follow(*sampler, runs.at("start") * sampler->init_noise_sigma(), errors);
    };
    const Trajectory ours = follow(nullptr);
    const auto count = static_cast<int64_t>(ours.timesteps.size());
    ASSERT_EQ(expected.numel(), count + 4);
    EXPECT_TRUE(at::allclose(at::tensor(ours.timesteps), expected.narrow(0, 0, count), 0.0, 1e-3));
    ExpectWithin(ours.end, expected.narrow(0, count, 4),
                 ToleranceOf(parts[0], changed, tolerance) * ours.largest + SpreadOfRounding(ours.end, follow), run);
    ++compared;
  }
  EXPECT_EQ(compared, 1065 - skipped);
  EXPECT_EQ(skipped, (8 + 4 + 2) * 5);
}

}  // namespace
}  // namespace hotlora
