#include "src/request/evaluation_range.h"

#include <string>

#include <gtest/gtest.h>

#include "src/request/image_job.h"

namespace hotlora {
namespace {

// "1" for each evaluation that the range holds.
std::string Held(EvaluationRange range, uint32_t total) {
  std::string held;
  for (uint32_t i = 0; i < total; ++i) {
    held += range.Holds(i, total) ? '1' : '0';
  }
  return held;
}

TEST(EvaluationRangeTest, HoldsWholeEvaluationsAlone) {
  EXPECT_EQ(Held({0.0, 0.5}, 8), "11110000");
  EXPECT_EQ(Held({0.5, 1.0}, 8), "00001111");
  EXPECT_EQ(Held({0.2, 0.7}, 7), "0011000");
  EXPECT_EQ(Held({0.0, 0.5}, 7), "1110000") << "ranges that meet inside an evaluation leave it to neither";
  EXPECT_EQ(Held({0.5, 1.0}, 7), "0000111");
  EXPECT_EQ(Held({0.25, 1.0}, 8), "00111111");
  EXPECT_EQ(Held({0.0, 1.0}, 3), "111");
  EXPECT_EQ(Held({0.3, 0.4}, 4), "0000");
  EXPECT_EQ(Held({0.0, 0.99}, 1), "0");
}

// In whole numbers: with start = s / 64 and end = e / 64, all fractions are exact if the number of evaluations is a
// power of two.
TEST(EvaluationRangeTest, EqualsTheRuleInWholeNumbers) {
  for (uint32_t total = 1; total <= 128; total *= 2) {
    for (uint32_t s = 0; s < 64; ++s) {
      for (uint32_t e = s + 1; e <= 64; ++e) {
        const EvaluationRange range{s / 64.0, e / 64.0};
        bool any = false;
        for (uint32_t i = 0; i < total; ++i) {
          const bool held = !(64 * i < s * total || 64 * (i + 1) > e * total);
          any = any || held;
          ASSERT_EQ(range.Holds(i, total), held) << s << " " << e << " " << i << " of " << total;
        }
        ASSERT_EQ(range.HoldsAny(total), any) << s << " " << e << " " << total;
      }
    }
  }
}

// Whatever the number: what is held is one stretch, and ranges that meet never overlap.
TEST(EvaluationRangeTest, IsOneStretchAndNeverOverlapsTheNext) {
  for (uint32_t total = 1; total <= 200; ++total) {
    EXPECT_EQ(Held({0.0, 1.0}, total), std::string(total, '1'));
    for (double middle : {0.1, 1.0 / 3, 0.5, 0.7, 0.99}) {
      const std::string first = Held({0.0, middle}, total), second = Held({middle, 1.0}, total);
      ASSERT_EQ(first.find("01"), std::string::npos) << middle << " of " << total;
      ASSERT_EQ(second.find("10"), std::string::npos) << middle << " of " << total;
      const size_t held = first.find('0') == std::string::npos ? total : first.find('0');
      ASSERT_LE(held, second.find('1') == std::string::npos ? total : second.find('1')) << middle << " of " << total;
    }
  }
}

TEST(EvaluationRangeTest, SamplersOfTwoEvaluationsMakeOneLessThanTwoAStep) {
  DenoiseOptions options;
  options.steps = 10;
  EXPECT_EQ(options.evaluations(), 10u);
  options.sampler = Sampler::kHeun;
  EXPECT_EQ(options.evaluations(), 19u);
  options.sampler = Sampler::kDpm2Ancestral;
  options.strength = 0.35;
  EXPECT_EQ(options.evaluations(), 5u) << "three steps are left";
  options.sampler = Sampler::kDpmpp2S;
  EXPECT_EQ(options.evaluations(), 3u);
}

}  // namespace
}  // namespace hotlora
