#include "src/sampling/guidance.h"

#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

at::Tensor Row(std::vector<float> values) {
  const auto count = static_cast<int64_t>(values.size());
  return at::tensor(values, at::kFloat).view({1, 1, 1, count});
}

TEST(GuidanceTest, ExtrapolatesFromTheNegative) {
  const at::Tensor guided = Guide(Row({1, 2, 3}), Row({2, 2, 5}), 5.0, 0.0);
  EXPECT_TRUE(at::equal(guided, Row({6, 2, 13})));
  EXPECT_TRUE(at::equal(Guide(Row({1, 2, 3}), Row({2, 2, 5}), 1.0, 0.0), Row({2, 2, 5})));
}

TEST(GuidanceTest, RescaleBringsBackThePositivesDeviation) {
  const at::Tensor negative = Row({0, 0, 0});
  const at::Tensor positive = Row({-1, 0, 1});
  // guided = 3 * positive: its deviation is 3, the positive's 1.
  EXPECT_TRUE(at::allclose(Guide(negative, positive, 3.0, 1.0), positive));
  EXPECT_TRUE(at::allclose(Guide(negative, positive, 3.0, 0.5), positive * 2));
}

TEST(GuidanceTest, RescalesEachImageByItself) {
  const at::Tensor positive = at::cat({Row({-1, 0, 1}), Row({-2, 1, 7})});
  const at::Tensor negative = at::cat({Row({0, 1, 0}), Row({3, 1, -2})});
  const at::Tensor both = Guide(negative, positive, 4.0, 0.7);
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(at::allclose(both.slice(0, i, i + 1),
                             Guide(negative.slice(0, i, i + 1), positive.slice(0, i, i + 1), 4.0, 0.7)));
  }
}

TEST(GuidanceTest, ComputesInFloat32AndStaysFinite) {
  const at::Tensor guided = Guide(Row({40000, 0}).to(at::kHalf), Row({60000, 0}).to(at::kHalf), 5.0, 0.0);
  EXPECT_EQ(guided.scalar_type(), at::kFloat);
  EXPECT_NEAR(guided.max().item<float>(), 140000.0f, 100.0f);
  EXPECT_TRUE(at::equal(Guide(Row({1, 1}), Row({1, 1}), 5.0, 0.5), Row({1, 1})));
}

TEST(GuidanceTest, RefusesShapesThatDisagree) { EXPECT_THROW(Guide(Row({1}), Row({1, 2}), 5.0, 0.0), c10::Error); }

}  // namespace
}  // namespace hotlora
