#include "src/sampling/sigma_spacing.h"

#include <cmath>

#include <gtest/gtest.h>

#include "src/sampling/noise_schedule.h"
#include "tests/sampling/sdxl_scheduler.h"

namespace hotlora {
namespace {

// Beta(1/2, 1/2) is the arcsine distribution, whose quantile is sin^2(pi / 2 * p); Beta(1, 1) is uniform.
TEST(SigmaSpacingTest, BetaQuantilesEqualTheirClosedForms) {
  for (int i = 0; i <= 40; ++i) {
    const double p = i / 40.0;
    EXPECT_NEAR(SymmetricBetaQuantile(p, 0.5), std::pow(std::sin(M_PI / 2 * p), 2), 1e-11) << p;
    EXPECT_NEAR(SymmetricBetaQuantile(p, 1.0), p, 1e-11) << p;
  }
}

TEST(SigmaSpacingTest, EverySpacingGoesFromMostToLeast) {
  for (const SigmaSpacing spacing :
       {SigmaSpacing::kKarras, SigmaSpacing::kExponential, SigmaSpacing::kBeta, SigmaSpacing::kLu}) {
    const std::vector<double> sigmas = SpreadSigmas(spacing, 14.6, 0.03, 5);
    ASSERT_EQ(sigmas.size(), 5u);
    EXPECT_NEAR(sigmas.front(), 14.6, 1e-9);
    EXPECT_NEAR(sigmas.back(), 0.03, 1e-9);
    for (size_t i = 1; i < sigmas.size(); ++i) {
      EXPECT_LT(sigmas[i], sigmas[i - 1]);
    }
    EXPECT_EQ(SpreadSigmas(spacing, 14.6, 0.03, 1).size(), 1u);
    EXPECT_NEAR(SpreadSigmas(spacing, 14.6, 0.03, 1)[0], 14.6, 1e-9);
  }
}

TEST(SigmaSpacingTest, SgmUniformIsNotRounded) {
  const NoiseSchedule schedule(SdxlScheduler());
  const StepPlan plan = schedule.Plan(4, NoiseScheduleKind::kSgmUniform);
  EXPECT_EQ(plan.timesteps, (std::vector<float>{999.0f, 749.25f, 499.5f, 249.75f}));
  const auto sigma = [&](int t) {
    return std::sqrt((1.0 - schedule.alphas_cumprod()[t]) / schedule.alphas_cumprod()[t]);
  };
  EXPECT_NEAR(plan.sigmas[0], sigma(999), 1e-4);
  EXPECT_NEAR(plan.sigmas[1], std::pow(sigma(749), 0.75) * std::pow(sigma(750), 0.25), 1e-5);
  EXPECT_NEAR(plan.sigmas[2], std::sqrt(sigma(499) * sigma(500)), 1e-5);
  EXPECT_EQ(plan.sigmas[4], 0.0f);
  const StepPlan multistep = schedule.MultistepPlan(4, NoiseScheduleKind::kSgmUniform);
  EXPECT_EQ(multistep.timesteps, plan.timesteps);
  EXPECT_EQ(multistep.sigmas, plan.sigmas);
}

TEST(SigmaSpacingTest, AlignYourStepsOfOtherCountsGoesAlongTheTenSigmas) {
  const NoiseSchedule schedule(SdxlScheduler());
  const StepPlan ten = schedule.Plan(10, NoiseScheduleKind::kAys);
  const StepPlan nineteen = schedule.Plan(19, NoiseScheduleKind::kAys);
  for (int i = 0; i < 10; ++i) {
    EXPECT_NEAR(nineteen.sigmas[2 * i], ten.sigmas[i], 1e-5 * ten.sigmas[i]);
    EXPECT_NEAR(nineteen.timesteps[2 * i], ten.timesteps[i], 1e-2);
  }
  for (int i = 0; i < 9; ++i) {
    EXPECT_NEAR(nineteen.sigmas[2 * i + 1], std::sqrt(ten.sigmas[i] * ten.sigmas[i + 1]), 1e-5 * ten.sigmas[i]);
  }
  EXPECT_EQ(nineteen.sigmas.back(), 0.0f);
  EXPECT_NEAR(schedule.Plan(1, NoiseScheduleKind::kAys).sigmas[0], ten.sigmas[0], 1e-4);
}

}  // namespace
}  // namespace hotlora
