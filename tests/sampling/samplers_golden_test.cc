// Whole trajectories of the reference with a stand-in for the network.

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "src/sampling/ddim_sampler.h"
#include "src/sampling/deis_sampler.h"
#include "src/sampling/dpm2_sampler.h"
#include "src/sampling/dpmpp_2s_sampler.h"
#include "src/sampling/dpmpp_multistep_sampler.h"
#include "src/sampling/euler_ancestral_sampler.h"
#include "src/sampling/euler_sampler.h"
#include "src/sampling/heun_sampler.h"
#include "src/sampling/lcm_sampler.h"
#include "src/sampling/lms_sampler.h"
#include "src/sampling/unipc_sampler.h"
#include "tests/golden_support.h"
#include "tests/sampling/sdxl_scheduler.h"

namespace hotlora {
namespace {

// A sampler with what the reference tells of its plan.
struct Planned {
  std::vector<float> sigmas;  // none where the reference has none
  std::unique_ptr<SamplerState> sampler;
};

using Kind = NoiseScheduleKind;
using MakePlanned = std::function<Planned(const NoiseSchedule&, uint32_t steps, NoiseSource)>;

struct Golden {
  std::string name;
  MakePlanned make;
};

template <typename Sampler, typename... More>
Planned Make(const StepPlan& plan, More... more) {
  return {plan.sigmas, std::make_unique<Sampler>(plan, std::move(more)...)};
}

template <typename Sampler>
MakePlanned AlongPlan(Kind kind = Kind::kDefault) {
  return [kind](const NoiseSchedule& schedule, uint32_t steps, NoiseSource) {
    return Make<Sampler>(schedule.Plan(steps, kind));
  };
}

MakePlanned Dpmpp(uint32_t order, Kind kind = Kind::kDefault) {
  return [order, kind](const NoiseSchedule& schedule, uint32_t steps, NoiseSource noise) {
    return Make<DpmppMultistepSampler>(schedule.MultistepPlan(steps, kind), order, std::move(noise));
  };
}

MakePlanned Dpmpp2S(Kind kind = Kind::kDefault) {
  return [kind](const NoiseSchedule& schedule, uint32_t steps, NoiseSource) {
    return Make<Dpmpp2SSampler>(schedule.SinglestepPlan(steps, kind));
  };
}

Planned MakeAncestral(const NoiseSchedule& schedule, uint32_t steps, NoiseSource noise) {
  return Make<EulerAncestralSampler>(schedule.Plan(steps), std::move(noise));
}

Planned MakeDdim(const NoiseSchedule& schedule, uint32_t steps, NoiseSource) {
  const SignalPlan plan = schedule.DdimPlan(steps);
  return {{}, std::make_unique<DdimSampler>(plan)};
}

Planned MakeDeis(const NoiseSchedule& schedule, uint32_t steps, NoiseSource) {
  return Make<DeisSampler>(schedule.DeisPlan(steps));
}

Planned MakeUniPc(const NoiseSchedule& schedule, uint32_t steps, NoiseSource) {
  return Make<UniPcSampler>(schedule.MultistepPlan(steps));
}

Planned MakeLcm(const NoiseSchedule& schedule, uint32_t steps, NoiseSource noise) {
  const SignalPlan plan = schedule.LcmPlan(steps);
  return {{}, std::make_unique<LcmSampler>(plan, std::move(noise))};
}

MakePlanned Tcd(double eta) {
  return [eta](const NoiseSchedule& schedule, uint32_t steps, NoiseSource noise) -> Planned {
    const SignalPlan plan = schedule.TcdPlan(steps, eta);
    return {{}, std::make_unique<DdimSampler>(plan, std::move(noise))};
  };
}

// The reference lists the evaluations of samplers of two a step, not their steps.
Planned ByEvaluation(const StepPlan& plan, std::unique_ptr<SamplerState> sampler) {
  Planned planned{{plan.sigmas[0]}, std::move(sampler)};
  for (size_t i = 1; i < plan.timesteps.size(); ++i) {
    planned.sigmas.insert(planned.sigmas.end(), 2, plan.sigmas[i]);
  }
  planned.sigmas.push_back(plan.sigmas.back());
  return planned;
}

Planned MakeHeun(const NoiseSchedule& schedule, uint32_t steps, NoiseSource) {
  const StepPlan plan = schedule.Plan(steps);
  return ByEvaluation(plan, std::make_unique<HeunSampler>(plan));
}

MakePlanned Dpm2(Kind kind = Kind::kDefault) {
  return [kind](const NoiseSchedule& schedule, uint32_t steps, NoiseSource noise) {
    const StepPlan plan = schedule.Dpm2Plan(steps, kind);
    Planned planned = ByEvaluation(plan, std::make_unique<Dpm2Sampler>(plan, schedule, std::move(noise)));
    planned.sigmas.insert(planned.sigmas.end(), 2, plan.sigmas.back());  // the reference has the last one three times
    return planned;
  };
}

nlohmann::json ReadJson(const std::string& name) {
  std::ifstream stream(GoldenPath(name));
  return nlohmann::json::parse(stream);
}

// Runs every count of steps of a folder's case, and compares timesteps, sigmas, draws and latents. Answers how many
// runs there were.
int ExpectFollowsTheReference(const std::string& folder, const Golden& golden) {
  const nlohmann::json manifest = ReadJson(folder + "/manifest.json");
  const auto& cases = manifest["cases"];
  const auto found =
      std::find_if(cases.begin(), cases.end(), [&](const auto& one) { return one["name"] == golden.name; });
  TORCH_CHECK(found != cases.end(), "no case ", golden.name);
  nlohmann::json config = ReadJson("pipeline/scheduler/scheduler_config.json");
  // A schedule that requests choose is given to the maker.
  for (const auto& [key, value] : (*found)["changed"].items()) {
    if (key != "use_beta_sigmas" && key != "use_lu_lambdas") {
      config[key] = value;
    }
  }
  const auto parsed = ParseSchedulerConfig(config);
  TORCH_CHECK(parsed.ok(), parsed.status().message());
  const NoiseSchedule schedule(*parsed);
  const TensorMap tensors = LoadTensors(GoldenPath(folder + "/" + golden.name + ".safetensors"));
  const nlohmann::json& tolerances = (*found)["tolerance"];
  const double off = tolerances["timesteps"].is_object() ? tolerances["timesteps"]["absolute"].get<double>() : 0.0;

  int runs = 0;
  for (const auto& [count, run] : (*found)["steps"].items()) {
    SCOPED_TRACE(golden.name + ", steps: " + count);
    const auto noise = tensors.find("noise_" + count);
    const int64_t draws = noise == tensors.end() ? 0 : noise->second.size(0);
    int64_t drawn = 0;
    NoiseSource source;
    // Samplers that draw take a source, also in a run of one step in which some have nothing to draw.
    if (tensors.count("noise_20") > 0) {
      source = [&](c10::IntArrayRef shape) {
        TORCH_CHECK(drawn < draws && shape == noise->second[drawn].sizes(), "draw ", drawn, " of ", shape);
        return noise->second[drawn++];
      };
    }
    const auto steps = static_cast<uint32_t>(std::stoul(count));
    const Planned planned = golden.make(schedule, steps, source);
    SamplerState& sampler = *planned.sampler;
    const at::Tensor timesteps = tensors.at("timesteps_" + count).to(at::kDouble);
    if (!planned.sigmas.empty()) {
      EXPECT_TRUE(at::allclose(at::tensor(planned.sigmas), tensors.at("sigmas_" + count), 1e-5, 1e-5));
    }
    EXPECT_NEAR(sampler.init_noise_sigma(), run["init_noise_sigma"], 1e-5 * run["init_noise_sigma"].get<double>());
    EXPECT_EQ(sampler.total_steps(), steps);

    const at::Tensor& expected = tensors.at("samples_" + count);
    const double tolerance = tolerances["samples"]["relative_to_largest_expected_value"].get<double>() *
                             run["largest_expected_value"].get<double>();
    at::Tensor x = tensors.at("start") * sampler.init_noise_sigma();
    const std::vector<float> announced = sampler.timesteps(steps * 2);
    int64_t evaluation = 0;
    for (; !sampler.done(); ++evaluation) {
      ExpectWithin(x, expected[evaluation], tolerance, "evaluation " + std::to_string(evaluation));
      const float t = sampler.timestep();
      EXPECT_NEAR(t, timesteps[evaluation].item<double>(), off);
      const auto here = announced.begin() + std::min<int64_t>(evaluation, announced.size());
      const auto end = here + std::min<int64_t>(3, announced.end() - here);
      EXPECT_EQ(sampler.timesteps(3), std::vector<float>(here, end)) << "timesteps ahead";
      EXPECT_TRUE(here != end && *here == t);
      const at::Tensor before = x.clone();
      const at::Tensor next = sampler.Step(x, sampler.ScaleInput(x) * 0.1 + std::sin(t / 1000.0));
      EXPECT_TRUE(at::equal(x, before)) << "the argument has changed";
      x = next;
    }
    ExpectWithin(x, expected[-1], tolerance, "end");
    EXPECT_EQ(evaluation + 1, expected.size(0));
    EXPECT_EQ(static_cast<size_t>(evaluation), announced.size());
    EXPECT_TRUE(sampler.timesteps(1).empty());
    EXPECT_EQ(drawn, draws);
    EXPECT_THROW(sampler.ScaleInput(x), c10::Error);
    EXPECT_THROW(sampler.Step(x, x), c10::Error);
    ++runs;
  }
  return runs;
}

class SamplersGoldenTest : public testing::TestWithParam<Golden> {};

TEST_P(SamplersGoldenTest, FollowsTheReference) { EXPECT_EQ(ExpectFollowsTheReference("schedulers", GetParam()), 6); }

class MoreSamplersGoldenTest : public testing::TestWithParam<Golden> {};

TEST_P(MoreSamplersGoldenTest, FollowsTheReference) {
  const bool ays = GetParam().name.find("ays") != std::string::npos;  // the reference knows it for ten steps alone
  EXPECT_EQ(ExpectFollowsTheReference("samplers_more", GetParam()), ays ? 1 : 4);
}

INSTANTIATE_TEST_SUITE_P(Reference, SamplersGoldenTest,
                         testing::Values(Golden{"euler_ancestral", MakeAncestral},
                                         Golden{"euler_ancestral_trailing", MakeAncestral}, Golden{"ddim", MakeDdim},
                                         Golden{"ddim_trailing", MakeDdim}, Golden{"ddim_v_prediction", MakeDdim},
                                         Golden{"dpmpp_2m", Dpmpp(2)}, Golden{"dpmpp_2m_karras", Dpmpp(2)},
                                         Golden{"lcm", MakeLcm}, Golden{"heun", MakeHeun},
                                         Golden{"dpmpp_2m_sde", Dpmpp(2)}, Golden{"dpmpp_2m_sde_karras", Dpmpp(2)},
                                         Golden{"unipc", MakeUniPc}),
                         [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Reference, MoreSamplersGoldenTest,
    testing::Values(
        Golden{"tcd_stochastic", Tcd(0.3)}, Golden{"tcd_eta_0", Tcd(0.0)}, Golden{"kdpm2", Dpm2()},
        Golden{"kdpm2_karras", Dpm2(Kind::kKarras)}, Golden{"kdpm2_ancestral", Dpm2()},
        Golden{"kdpm2_ancestral_karras", Dpm2(Kind::kKarras)}, Golden{"lms", AlongPlan<LmsSampler>()},
        Golden{"lms_karras", AlongPlan<LmsSampler>(Kind::kKarras)}, Golden{"deis", MakeDeis},
        Golden{"dpmpp_2s", Dpmpp2S()}, Golden{"dpmpp_2s_karras", Dpmpp2S(Kind::kKarras)}, Golden{"dpmpp_3m", Dpmpp(3)},
        Golden{"dpmpp_3m_karras", Dpmpp(3, Kind::kKarras)}, Golden{"dpmpp_3m_sde", Dpmpp(3)},
        Golden{"euler_beta", AlongPlan<EulerSampler>(Kind::kBeta)}, Golden{"dpmpp_2m_beta", Dpmpp(2, Kind::kBeta)},
        Golden{"euler_exponential", AlongPlan<EulerSampler>(Kind::kExponential)},
        Golden{"dpmpp_2m_exponential", Dpmpp(2, Kind::kExponential)}, Golden{"dpmpp_2m_lu", Dpmpp(2, Kind::kLu)},
        Golden{"euler_ays", AlongPlan<EulerSampler>(Kind::kAys)}, Golden{"dpmpp_2m_ays", Dpmpp(2, Kind::kAys)}),
    [](const auto& info) { return info.param.name; });

// What diffusers cannot do, or what it answers with NaN: every sampler comes to a finite end in exactly the steps asked
// for, on every spacing and prediction, with more steps than the training had timesteps and with a last sigma above 0.
TEST(SamplersTest, EndFiniteOnEverySchedule) {
  struct Maker {
    MakePlanned make;
    uint32_t most_steps = 1000;
    bool draws = true;
  };
  const Maker makers[] = {{MakeAncestral},
                          {MakeDdim},
                          {Dpmpp(2)},
                          {Dpmpp(2), 1000, false},
                          {MakeUniPc},
                          {MakeLcm, NoiseSchedule::kDistilledSteps},
                          {MakeHeun},
                          {Tcd(0.5), NoiseSchedule::kDistilledSteps},
                          {Dpm2(), 1000, false},
                          {Dpm2()},
                          {AlongPlan<LmsSampler>()},
                          {MakeDeis},
                          {Dpmpp2S()},
                          {Dpmpp(3), 1000, false},
                          {Dpmpp(3)},
                          {Dpmpp(3, Kind::kBeta), 1000, false},
                          {Dpmpp(3, Kind::kLu)},
                          {Dpmpp(2, Kind::kAys)},
                          {Dpmpp(3, Kind::kSgmUniform)},
                          {AlongPlan<EulerSampler>(Kind::kAys)},
                          {AlongPlan<EulerSampler>(Kind::kSgmUniform)},
                          {AlongPlan<LmsSampler>(Kind::kBeta)}};
  const NoiseSource ones = [](c10::IntArrayRef shape) { return at::ones(shape); };
  for (const TimestepSpacing spacing :
       {TimestepSpacing::kLinspace, TimestepSpacing::kLeading, TimestepSpacing::kTrailing}) {
    for (const SigmaSpacing sigmas : {SigmaSpacing::kTimesteps, SigmaSpacing::kKarras, SigmaSpacing::kExponential}) {
      for (const bool zero_snr : {false, true}) {
        SchedulerConfig config = SdxlScheduler();
        config.timestep_spacing = spacing;
        config.sigma_spacing = sigmas;
        config.rescale_betas_zero_snr = config.final_sigma_min = zero_snr;
        config.prediction = zero_snr ? Prediction::kV : Prediction::kEpsilon;
        const NoiseSchedule schedule(config);
        for (const uint32_t steps : {1u, 2u, 15u, 50u, 1000u}) {
          for (size_t i = 0; i < std::size(makers); ++i) {
            if (steps > makers[i].most_steps) {
              continue;
            }
            const Planned planned = makers[i].make(schedule, steps, makers[i].draws ? ones : NoiseSource());
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
  const std::unique_ptr<SamplerState> samplers[] = {std::make_unique<DpmppMultistepSampler>(plan, 2),
                                                    std::make_unique<DpmppMultistepSampler>(plan, 3),
                                                    std::make_unique<UniPcSampler>(plan),
                                                    std::make_unique<LmsSampler>(plan),
                                                    std::make_unique<DeisSampler>(plan),
                                                    std::make_unique<Dpmpp2SSampler>(plan)};
  for (const auto& sampler : samplers) {
    EXPECT_TRUE(at::equal(sampler->Step(x, x), x));
    EXPECT_EQ(sampler->steps_done(), 1u);
    EXPECT_TRUE(at::isfinite(sampler->Step(x, x)).all().item<bool>());
  }
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

// DDIM with eta 1 is the training's ancestral step: the posterior's mean and deviation.
TEST(SamplersTest, DdimsNoiseIsThePosteriorsDeviationTimesEta) {
  SignalPlan plan = NoiseSchedule(SchedulerConfig()).DdimPlan(10, NoiseScheduleKind::kDefault, 0.5);
  ASSERT_EQ(plan.fresh_noise.size(), 10u);
  const double alpha = plan.alphas[0], next = plan.next_alphas[0];
  const double deviation = 0.5 * std::sqrt((1 - next) / (1 - alpha) * (1 - alpha / next));
  EXPECT_NEAR(plan.fresh_noise[0], deviation, 1e-6);
  DdimSampler sampler(plan, [](c10::IntArrayRef shape) { return at::full(shape, 2.0f); });
  const at::Tensor x = at::full({1, 1, 1, 1}, 3.0f);
  const double x0 = (3.0 - std::sqrt(1 - alpha) * 0.5) / std::sqrt(alpha);
  const double expected = std::sqrt(next) * x0 + std::sqrt(1 - next - deviation * deviation) * 0.5 + deviation * 2.0;
  EXPECT_NEAR(sampler.Step(x, at::full_like(x, 0.5f)).item<double>(), expected, 1e-4 * expected);
  EXPECT_TRUE(Tail(plan, 4).fresh_noise == std::vector<float>(plan.fresh_noise.begin() + 4, plan.fresh_noise.end()));
}

// A tail of LMS weighs its slopes as the whole run would, and 2S' pairs stay pairs of the whole run.
TEST(SamplersTest, TailsKnowWhatCameBefore) {
  const StepPlan plan = NoiseSchedule(SchedulerConfig()).MultistepPlan(8);
  const StepPlan tail = Tail(Tail(plan, 2), 1);
  EXPECT_EQ(tail.earlier_sigmas, std::vector<float>(plan.sigmas.begin(), plan.sigmas.begin() + 3));
  EXPECT_EQ(tail.run_steps, 8u);
  StepPlan alone = tail;
  alone.earlier_sigmas.clear();
  const at::Tensor x = at::full({1, 1, 1, 1}, 3.0f);
  EXPECT_FALSE(at::equal(LmsSampler(tail).Step(x, x), LmsSampler(alone).Step(x, x)));
  Dpmpp2SSampler second_of_a_pair(tail), first_of_a_pair(alone);
  for (SamplerState* sampler :
       {static_cast<SamplerState*>(&second_of_a_pair), static_cast<SamplerState*>(&first_of_a_pair)}) {
    sampler->Step(x, x);
  }
  EXPECT_FALSE(at::equal(second_of_a_pair.Step(x, x * 2), first_of_a_pair.Step(x, x * 2)));
}

TEST(SamplersTest, LcmRefusesMoreStepsThanItsTraining) {
  const NoiseSchedule schedule{SchedulerConfig()};
  EXPECT_EQ(schedule.LcmPlan(50).timesteps.size(), 50u);
  EXPECT_THROW(schedule.LcmPlan(51), c10::Error);
  EXPECT_THROW(schedule.DdimPlan(10, NoiseScheduleKind::kKarras), c10::Error);
}

}  // namespace
}  // namespace hotlora
