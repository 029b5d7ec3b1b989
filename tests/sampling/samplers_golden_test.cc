// Whole trajectories of the reference with a stand-in for the network, of every sampler but Euler.

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "src/sampling/ddim_sampler.h"
#include "src/sampling/dpmpp_2m_sampler.h"
#include "src/sampling/euler_ancestral_sampler.h"
#include "src/sampling/heun_sampler.h"
#include "src/sampling/lcm_sampler.h"
#include "src/sampling/unipc_sampler.h"
#include "tests/golden_support.h"

namespace hotlora {
namespace {

// A sampler with what the reference tells of its plan.
struct Planned {
  std::vector<float> timesteps, sigmas;  // no sigmas where the reference has none
  std::unique_ptr<SamplerState> sampler;
};

using MakePlanned = std::function<Planned(const NoiseSchedule&, uint32_t steps, NoiseSource)>;

struct Golden {
  std::string name;
  MakePlanned make;
};

Planned MakeAncestral(const NoiseSchedule& schedule, uint32_t steps, NoiseSource noise) {
  const StepPlan plan = schedule.Plan(steps);
  return {plan.timesteps, plan.sigmas, std::make_unique<EulerAncestralSampler>(plan, std::move(noise))};
}

Planned MakeDdim(const NoiseSchedule& schedule, uint32_t steps, NoiseSource) {
  const SignalPlan plan = schedule.DdimPlan(steps);
  return {plan.timesteps, {}, std::make_unique<DdimSampler>(plan)};
}

Planned MakeDpmpp(const NoiseSchedule& schedule, uint32_t steps, NoiseSource noise) {
  const StepPlan plan = schedule.MultistepPlan(steps);
  return {plan.timesteps, plan.sigmas, std::make_unique<Dpmpp2MSampler>(plan, std::move(noise))};
}

Planned MakeUniPc(const NoiseSchedule& schedule, uint32_t steps, NoiseSource) {
  const StepPlan plan = schedule.MultistepPlan(steps);
  return {plan.timesteps, plan.sigmas, std::make_unique<UniPcSampler>(plan)};
}

Planned MakeLcm(const NoiseSchedule& schedule, uint32_t steps, NoiseSource noise) {
  const SignalPlan plan = schedule.LcmPlan(steps);
  return {plan.timesteps, {}, std::make_unique<LcmSampler>(plan, std::move(noise))};
}

// The reference lists Heun's evaluations, not its steps.
Planned MakeHeun(const NoiseSchedule& schedule, uint32_t steps, NoiseSource) {
  const StepPlan plan = schedule.Plan(steps);
  Planned planned{{plan.timesteps[0]}, {plan.sigmas[0]}, std::make_unique<HeunSampler>(plan)};
  for (size_t i = 1; i < plan.timesteps.size(); ++i) {
    planned.timesteps.insert(planned.timesteps.end(), 2, plan.timesteps[i]);
    planned.sigmas.insert(planned.sigmas.end(), 2, plan.sigmas[i]);
  }
  planned.sigmas.push_back(plan.sigmas.back());
  return planned;
}

class SamplersGoldenTest : public testing::TestWithParam<Golden> {
 protected:
  static nlohmann::json ReadJson(const std::string& name) {
    std::ifstream stream(GoldenPath(name));
    return nlohmann::json::parse(stream);
  }
};

TEST_P(SamplersGoldenTest, FollowsTheReference) {
  const nlohmann::json manifest = ReadJson("schedulers/manifest.json");
  const auto& cases = manifest["cases"];
  const auto found =
      std::find_if(cases.begin(), cases.end(), [](const auto& one) { return one["name"] == GetParam().name; });
  ASSERT_NE(found, cases.end());
  nlohmann::json config = ReadJson("pipeline/scheduler/scheduler_config.json");
  config.update((*found)["changed"]);
  const auto parsed = ParseSchedulerConfig(config);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const NoiseSchedule schedule(*parsed);
  const TensorMap tensors = LoadTensors(GoldenPath("schedulers/" + GetParam().name + ".safetensors"));

  int runs = 0;
  for (const auto& [count, run] : (*found)["steps"].items()) {
    SCOPED_TRACE(count);
    const auto noise = tensors.find("noise_" + count);
    const int64_t draws = noise == tensors.end() ? 0 : noise->second.size(0);
    int64_t drawn = 0;
    NoiseSource source;
    // The case of one LCM step has no noise at all, yet is of a sampler that takes a source.
    if (noise != tensors.end() || GetParam().name == "lcm") {
      source = [&](c10::IntArrayRef shape) {
        TORCH_CHECK(drawn < draws && shape == noise->second[drawn].sizes(), "draw ", drawn, " of ", shape);
        return noise->second[drawn++];
      };
    }
    const auto steps = static_cast<uint32_t>(std::stoul(count));
    const Planned planned = GetParam().make(schedule, steps, source);
    SamplerState& sampler = *planned.sampler;
    EXPECT_TRUE(at::equal(at::tensor(planned.timesteps), tensors.at("timesteps_" + count).to(at::kFloat)));
    if (!planned.sigmas.empty()) {
      EXPECT_TRUE(at::allclose(at::tensor(planned.sigmas), tensors.at("sigmas_" + count), 1e-5, 1e-5));
    }
    EXPECT_NEAR(sampler.init_noise_sigma(), run["init_noise_sigma"], 1e-5 * run["init_noise_sigma"].get<double>());
    EXPECT_EQ(sampler.total_steps(), steps);

    const at::Tensor& expected = tensors.at("samples_" + count);
    const double tolerance = (*found)["tolerance"]["samples"]["relative_to_largest_expected_value"].get<double>() *
                             run["largest_expected_value"].get<double>();
    at::Tensor x = tensors.at("start") * sampler.init_noise_sigma();
    int64_t evaluation = 0;
    for (; !sampler.done(); ++evaluation) {
      ExpectWithin(x, expected[evaluation], tolerance, "evaluation " + std::to_string(evaluation));
      const float t = sampler.timestep();
      EXPECT_EQ(t, planned.timesteps.at(evaluation));
      const at::Tensor before = x.clone();
      const at::Tensor next = sampler.Step(x, sampler.ScaleInput(x) * 0.1 + std::sin(t / 1000.0));
      EXPECT_TRUE(at::equal(x, before)) << "the argument has changed";
      x = next;
    }
    ExpectWithin(x, expected[-1], tolerance, "end");
    EXPECT_EQ(evaluation + 1, expected.size(0));
    EXPECT_EQ(drawn, draws);
    EXPECT_THROW(sampler.ScaleInput(x), c10::Error);
    EXPECT_THROW(sampler.Step(x, x), c10::Error);
    ++runs;
  }
  EXPECT_EQ(runs, 6);
}

INSTANTIATE_TEST_SUITE_P(Reference, SamplersGoldenTest,
                         testing::Values(Golden{"euler_ancestral", MakeAncestral},
                                         Golden{"euler_ancestral_trailing", MakeAncestral}, Golden{"ddim", MakeDdim},
                                         Golden{"ddim_trailing", MakeDdim}, Golden{"ddim_v_prediction", MakeDdim},
                                         Golden{"dpmpp_2m", MakeDpmpp}, Golden{"dpmpp_2m_karras", MakeDpmpp},
                                         Golden{"lcm", MakeLcm}, Golden{"heun", MakeHeun},
                                         Golden{"dpmpp_2m_sde", MakeDpmpp}, Golden{"dpmpp_2m_sde_karras", MakeDpmpp},
                                         Golden{"unipc", MakeUniPc}),
                         [](const auto& info) { return info.param.name; });

// What diffusers cannot do, or what it answers with NaN: every sampler comes to a finite end in exactly the steps asked
// for, on every spacing and prediction, with more steps than the training had timesteps and with a last sigma above 0.
TEST(SamplersTest, EndFiniteOnEverySchedule) {
  const MakePlanned makers[] = {MakeAncestral, MakeDdim, MakeDpmpp, MakeUniPc, MakeLcm, MakeHeun};
  const NoiseSource ones = [](c10::IntArrayRef shape) { return at::ones(shape); };
  for (const TimestepSpacing spacing :
       {TimestepSpacing::kLinspace, TimestepSpacing::kLeading, TimestepSpacing::kTrailing}) {
    for (const SigmaSpacing sigmas : {SigmaSpacing::kTimesteps, SigmaSpacing::kKarras, SigmaSpacing::kExponential}) {
      for (const bool zero_snr : {false, true}) {
        SchedulerConfig config;
        config.beta_start = 0.00085;
        config.beta_end = 0.012;
        config.beta_schedule = BetaSchedule::kScaledLinear;
        config.steps_offset = 1;
        config.timestep_spacing = spacing;
        config.sigma_spacing = sigmas;
        config.rescale_betas_zero_snr = config.final_sigma_min = zero_snr;
        config.prediction = zero_snr ? Prediction::kV : Prediction::kEpsilon;
        const NoiseSchedule schedule(config);
        for (const uint32_t steps : {1u, 2u, 15u, 50u, 1000u}) {
          for (size_t i = 0; i < std::size(makers); ++i) {
            if (i == 4 && steps > NoiseSchedule::kLcmTrainedSteps) {
              continue;
            }
            const Planned planned = makers[i](schedule, steps, i == 3 ? NoiseSource() : ones);
            at::Tensor x = at::ones({1, 1, 1, 2}) * planned.sampler->init_noise_sigma();
            while (!planned.sampler->done()) {
              x = planned.sampler->Step(x, planned.sampler->ScaleInput(x) * 0.5);
            }
            EXPECT_TRUE(at::isfinite(x).all().item<bool>())
                << "sampler " << i << ", spacing " << static_cast<int>(spacing) << ", sigmas "
                << static_cast<int>(sigmas) << ", " << steps << " steps, zero SNR " << zero_snr;
          }
        }
      }
    }
  }
}

// Spacings of many steps name a timestep twice; the formulas divide by the way between the two.
TEST(SamplersTest, StepsBetweenEqualSigmasChangeNothing) {
  StepPlan plan;
  plan.timesteps = {500.0f, 500.0f, 1.0f};
  plan.sigmas = {2.0f, 2.0f, 1.0f, 0.0f};
  const at::Tensor x = at::full({1, 1, 1, 1}, 3.0f);
  Dpmpp2MSampler dpmpp(plan);
  UniPcSampler unipc(plan);
  EXPECT_TRUE(at::equal(dpmpp.Step(x, x), x));
  EXPECT_TRUE(at::equal(unipc.Step(x, x), x));
  EXPECT_EQ(dpmpp.steps_done(), 1u);
  EXPECT_EQ(unipc.steps_done(), 1u);
}

TEST(SamplersTest, HeunCountsTwoEvaluationsAsOneStep) {
  StepPlan plan;
  plan.timesteps = {999.0f, 1.0f};
  plan.sigmas = {3.0f, 1.0f, 0.0f};
  HeunSampler sampler(plan);
  const at::Tensor x = at::full({1, 1, 1, 1}, 2.0f);
  const at::Tensor guess = sampler.Step(x, at::full_like(x, 0.5f));
  EXPECT_FLOAT_EQ(guess.item<float>(), 1.0f);  // 2 + 0.5 * (1 - 3)
  EXPECT_EQ(sampler.steps_done(), 0u);
  EXPECT_EQ(sampler.timestep(), 1.0f);
  const at::Tensor next = sampler.Step(guess, at::full_like(x, 0.25f));
  EXPECT_FLOAT_EQ(next.item<float>(), 1.25f);  // 2 + (0.5 + 0.25) / 2 * (1 - 3)
  EXPECT_EQ(sampler.steps_done(), 1u);
  EXPECT_EQ(sampler.timestep(), 1.0f);
  EXPECT_FLOAT_EQ(sampler.Step(next, at::full_like(x, 0.25f)).item<float>(), 1.0f);  // the last step is Euler's
  EXPECT_TRUE(sampler.done());
}

TEST(SamplersTest, LcmRefusesMoreStepsThanItsTraining) {
  const NoiseSchedule schedule{SchedulerConfig()};
  EXPECT_EQ(schedule.LcmPlan(50).timesteps.size(), 50u);
  EXPECT_THROW(schedule.LcmPlan(51), c10::Error);
  EXPECT_THROW(schedule.DdimPlan(10, NoiseScheduleKind::kKarras), c10::Error);
}

}  // namespace
}  // namespace hotlora
