#include "client/bench/statistics.h"

#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

std::vector<double> Normal(size_t count, double mean, double deviation, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(mean, deviation);
  std::vector<double> values(count);
  for (double& value : values) {
    value = normal(random);
  }
  return values;
}

std::vector<double> Counting(size_t count) {
  std::vector<double> x(count);
  for (size_t i = 0; i < count; ++i) {
    x[i] = static_cast<double>(i);
  }
  return x;
}

TEST(StatisticsTest, QuantilesAreLinearBetweenNeighbours) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(Median({7}), 7);
  EXPECT_DOUBLE_EQ(Quantile({10, 0, 20, 30}, 0.95), 28.5);  // numpy.quantile
  EXPECT_EQ(Quantile({1, 2}, 0.0), 1);
  EXPECT_EQ(Quantile({1, 2}, 1.0), 2);
}

TEST(StatisticsTest, TheIntervalOfAMedianIsAsWideAsTheoryHasIt) {
  const std::vector<double> values = Normal(1000, 5.0, 1.0, 1);
  const Interval interval = BootstrapInterval(values, Median);
  EXPECT_LT(interval.low, 5.0);
  EXPECT_GT(interval.high, 5.0);
  // 2 * 1.96 * sqrt(pi / 2) / sqrt(1000)
  EXPECT_NEAR(interval.high - interval.low, 0.155, 0.05);
}

TEST(StatisticsTest, TheSameSeedGivesTheSameInterval) {
  const std::vector<double> values = Normal(50, 0.0, 1.0, 2);
  const Interval a = BootstrapInterval(values, Median, {5, 200, 3});
  const Interval b = BootstrapInterval(values, Median, {5, 200, 3});
  const Interval c = BootstrapInterval(values, Median, {5, 200, 4});
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  EXPECT_TRUE(a.low != c.low || a.high != c.high);
}

// Neighbours that are alike tell less than as many independent values.
TEST(StatisticsTest, BlocksWidenTheIntervalOfWhatHangsTogether) {
  std::vector<double> values;
  for (const double value : Normal(50, 0.0, 1.0, 3)) {
    values.insert(values.end(), 20, value);
  }
  const Interval alone = BootstrapInterval(values, Median);
  const Interval blocks = BootstrapInterval(values, Median, {20, 1000, 0});
  EXPECT_GT(blocks.high - blocks.low, 2 * (alone.high - alone.low));
}

TEST(StatisticsTest, TheSlopeIsThatOfMostPoints) {
  EXPECT_DOUBLE_EQ(TheilSenSlope({0, 1, 2, 3}, {1, 3, 5, 7}), 2);
  EXPECT_DOUBLE_EQ(TheilSenSlope({0, 1, 2, 3, 4}, {1, 3, 100, 7, 9}), 2);
  EXPECT_DOUBLE_EQ(TheilSenSlope({0, 0, 1}, {5, 9, 8}), 1);  // of 3 and -1; the pair of one x has no slope
}

TEST(StatisticsTest, TheIntervalOfASlopeHasTheTrueSlopeInIt) {
  const std::vector<double> x = Counting(100);
  std::vector<double> y = Normal(100, 0.0, 1.0, 4);
  for (size_t i = 0; i < x.size(); ++i) {
    y[i] += 0.5 * x[i];
  }
  const Interval interval = TheilSenInterval(x, y, {5, 300, 0});
  EXPECT_LT(interval.low, 0.5);
  EXPECT_GT(interval.high, 0.5);
  EXPECT_LT(interval.high - interval.low, 0.05);
  EXPECT_GT(interval.high - interval.low, 0.002);
}

}  // namespace
}  // namespace hotlora
