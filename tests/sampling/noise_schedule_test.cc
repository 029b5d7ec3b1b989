#include "src/sampling/noise_schedule.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/sampling/sdxl_scheduler.h"

namespace hotlora {
namespace {

using ::testing::ElementsAre;

struct PublishedRun {
  uint32_t steps;
  float timesteps[3];
  float sigmas[3];
  float init_noise_sigma;
};

// SDXL base's published numbers, computed in double.
TEST(NoiseScheduleTest, GivesSdxlsPublishedNumbers) {
  const NoiseSchedule schedule(SdxlScheduler());
  EXPECT_NEAR(schedule.alphas_cumprod().back(), 0.0046600985, 1e-8);
  constexpr PublishedRun kRuns[] = {
      {4, {751, 501, 251}, {4.116696f, 1.623692f, 0.698398f}, 4.236412f},
      {20, {951, 901, 851}, {11.028331f, 8.390685f, 6.506398f}, 11.073576f},
      {25, {961, 921, 881}, {11.676046f, 9.338076f, 7.562388f}, 11.718791f},
      {30, {958, 925, 892}, {11.476846f, 9.543583f, 8.004311f}, 11.520330f},
      {50, {981, 961, 941}, {13.120411f, 11.676046f, 10.425041f}, 13.158464f},
  };
  for (const PublishedRun& run : kRuns) {
    const StepPlan plan = schedule.Plan(run.steps);
    ASSERT_EQ(plan.timesteps.size(), run.steps);
    ASSERT_EQ(plan.sigmas.size(), run.steps + 1);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(plan.timesteps[i], run.timesteps[i]) << run.steps;
      EXPECT_NEAR(plan.sigmas[i], run.sigmas[i], 1e-5) << run.steps;
    }
    EXPECT_EQ(plan.timesteps.back(), 1.0f);
    EXPECT_NEAR(plan.sigmas[run.steps - 1], 0.041314, 1e-5);
    EXPECT_EQ(plan.sigmas.back(), 0.0f);
    EXPECT_NEAR(plan.init_noise_sigma, run.init_noise_sigma, 1e-5);
  }
}

TEST(NoiseScheduleTest, EverySpacingGivesExactlyAsManyStepsAsAsked) {
  for (const TimestepSpacing spacing :
       {TimestepSpacing::kLinspace, TimestepSpacing::kLeading, TimestepSpacing::kTrailing}) {
    SchedulerConfig config = SdxlScheduler();
    config.timestep_spacing = spacing;
    const NoiseSchedule schedule(config);
    for (uint32_t steps = 1; steps <= 1000; ++steps) {
      const StepPlan plan = schedule.Plan(steps);
      ASSERT_EQ(plan.timesteps.size(), steps);
      EXPECT_TRUE(std::is_sorted(plan.timesteps.rbegin(), plan.timesteps.rend())) << steps;
      EXPECT_TRUE(std::is_sorted(plan.sigmas.rbegin(), plan.sigmas.rend())) << steps;
      EXPECT_GE(plan.timesteps.back(), 0.0f);
      EXPECT_LE(plan.timesteps.front(), 1000.0f);
    }
  }
}

TEST(NoiseScheduleTest, SpacesAsTheTableInThePaper) {
  SchedulerConfig config = SdxlScheduler();
  config.timestep_spacing = TimestepSpacing::kLinspace;
  EXPECT_THAT(NoiseSchedule(config).Plan(4).timesteps, ElementsAre(999, 666, 333, 0));
  EXPECT_THAT(NoiseSchedule(config).Plan(1).timesteps, ElementsAre(0));
  config.timestep_spacing = TimestepSpacing::kTrailing;
  EXPECT_THAT(NoiseSchedule(config).Plan(4).timesteps, ElementsAre(999, 749, 499, 249));
  EXPECT_THAT(NoiseSchedule(config).Plan(1).timesteps, ElementsAre(999));
  EXPECT_FLOAT_EQ(NoiseSchedule(config).Plan(1).init_noise_sigma, 14.614647f);
}

TEST(NoiseScheduleTest, ARequestsKarrasAndExponentialKeepTheSpacing) {
  SchedulerConfig config = SdxlScheduler();
  const StepPlan own = NoiseSchedule(config).Plan(8);
  const StepPlan karras = NoiseSchedule(config).Plan(8, NoiseScheduleKind::kKarras);
  const StepPlan exponential = NoiseSchedule(config).Plan(8, NoiseScheduleKind::kExponential);
  for (const StepPlan& plan : {karras, exponential}) {
    // The ends are those of the leading spacing; between them all differs.
    EXPECT_NEAR(plan.sigmas[0], own.sigmas[0], 1e-5);
    EXPECT_NEAR(plan.sigmas[7], own.sigmas[7], 1e-6);
    EXPECT_GT(std::abs(plan.sigmas[3] - own.sigmas[3]), 0.01);
    EXPECT_EQ(plan.init_noise_sigma, own.init_noise_sigma);
  }
  for (int i = 1; i < 7; ++i) {
    EXPECT_NEAR(exponential.sigmas[i] * exponential.sigmas[i], exponential.sigmas[i - 1] * exponential.sigmas[i + 1],
                1e-4);
  }
  config.sigma_spacing = SigmaSpacing::kKarras;
  EXPECT_EQ(NoiseSchedule(config).Plan(8).sigmas, karras.sigmas);
  EXPECT_EQ(NoiseSchedule(config).Plan(8, NoiseScheduleKind::kExponential).sigmas, exponential.sigmas);
}

TEST(NoiseScheduleTest, ARequestsTrailingKeepsTheSigmaSpacing) {
  SchedulerConfig config = SdxlScheduler();
  SchedulerConfig trailing = SdxlScheduler();
  trailing.timestep_spacing = TimestepSpacing::kTrailing;
  EXPECT_EQ(NoiseSchedule(config).Plan(8, NoiseScheduleKind::kTrailing).sigmas, NoiseSchedule(trailing).Plan(8).sigmas);
  EXPECT_EQ(NoiseSchedule(config).Plan(8, NoiseScheduleKind::kTrailing).init_noise_sigma,
            NoiseSchedule(trailing).Plan(8).init_noise_sigma);
  config.sigma_spacing = trailing.sigma_spacing = SigmaSpacing::kKarras;
  EXPECT_EQ(NoiseSchedule(config).Plan(8, NoiseScheduleKind::kTrailing).sigmas, NoiseSchedule(trailing).Plan(8).sigmas);
}

TEST(NoiseScheduleTest, EndsInTheSmallestSigmaWhereTheConfigSaysSo) {
  SchedulerConfig config = SdxlScheduler();
  config.final_sigma_min = true;
  EXPECT_NEAR(NoiseSchedule(config).Plan(4).sigmas.back(), 0.0291672, 1e-5);
}

TEST(NoiseScheduleTest, BetasMayBeGivenLinearOrCosine) {
  SchedulerConfig config;
  config.num_train_timesteps = 3;
  config.trained_betas = {0.5f, 0.5f, 0.5f};
  EXPECT_THAT(NoiseSchedule(config).alphas_cumprod(), ElementsAre(0.5f, 0.25f, 0.125f));
  config.trained_betas.clear();
  config.beta_start = 0.1;
  config.beta_end = 0.3;
  const std::vector<float> linear = NoiseSchedule(config).alphas_cumprod();
  EXPECT_NEAR(linear[2], 0.9 * 0.8 * 0.7, 1e-6);
  config.beta_schedule = BetaSchedule::kSquaredCosine;
  config.num_train_timesteps = 1000;
  const std::vector<float> cosine = NoiseSchedule(config).alphas_cumprod();
  const double begin = std::pow(std::cos(0.008 / 1.008 * M_PI / 2), 2);
  EXPECT_NEAR(cosine[499], std::pow(std::cos(0.508 / 1.008 * M_PI / 2), 2) / begin, 1e-5);
}

TEST(NoiseScheduleTest, RefusesStepCountsThatNoRequestMayHave) {
  const NoiseSchedule schedule(SdxlScheduler());
  EXPECT_ANY_THROW(schedule.Plan(0));
  EXPECT_ANY_THROW(schedule.Plan(1001));
}

}  // namespace
}  // namespace hotlora
