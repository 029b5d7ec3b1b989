#include "src/metrics/adapter_usage.h"

#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>
#include <prometheus/client_metric.h>

namespace hotlora {
namespace {

std::map<std::string, double> Requests(const AdapterUsage& usage) {
  std::map<std::string, double> requests;
  const auto families = usage.Collect();
  for (const auto& metric : families.front().metric) {
    requests[metric.label.front().value] = metric.counter.value;
  }
  return requests;
}

void CountTimes(AdapterUsage& usage, const std::string& name, int times) {
  for (int i = 0; i < times; ++i) {
    usage.Count({name}, 1000 + i);
  }
}

TEST(AdapterUsageTest, CountsEachAdapterOfARequestAndTheBaseModelAsNone) {
  AdapterUsage usage;
  usage.Count({}, 1);
  usage.Count({"neon", "night"}, 2);
  usage.Count({"neon"}, 3);
  EXPECT_EQ(Requests(usage), (std::map<std::string, double>{{"_none", 1}, {"_other", 0}, {"neon", 2}, {"night", 1}}));
}

TEST(AdapterUsageTest, AdaptersCalledLikeTheSumsMakeNoSecondSeries) {
  AdapterUsage usage;
  usage.Count({"_none", "_other", "_pony"}, 1);
  EXPECT_EQ(usage.Collect().front().metric.size(), 3u);
  EXPECT_EQ(Requests(usage), (std::map<std::string, double>{{"_none", 0}, {"_other", 2}, {"_pony", 1}}));
}

TEST(AdapterUsageTest, TellsWhenEachWasLastUsed) {
  AdapterUsage usage;
  EXPECT_EQ(usage.Collect().size(), 1u);
  usage.Count({"neon"}, 5);
  usage.Count({"neon"}, 7);
  const auto families = usage.Collect();
  ASSERT_EQ(families.size(), 2u);
  ASSERT_EQ(families[1].metric.size(), 1u);
  EXPECT_EQ(families[1].metric[0].gauge.value, 7);
}

TEST(AdapterUsageTest, TenThousandAdaptersHave64Names) {
  AdapterUsage usage;
  for (int i = 0; i < 10'000; ++i) {
    usage.Count({absl::StrCat("adapter-", i)}, i);
  }
  const auto requests = Requests(usage);
  EXPECT_EQ(requests.size(), AdapterUsage::kMaxNames + 2);
  double sum = 0;
  for (const auto& [name, count] : requests) {
    sum += count;
  }
  EXPECT_EQ(sum, 10'000);
}

TEST(AdapterUsageTest, TheMoreUsedTakesTheNameOfTheLeastUsedAndNoSeriesGoesDown) {
  AdapterUsage usage;
  for (size_t i = 0; i < AdapterUsage::kMaxNames; ++i) {
    CountTimes(usage, absl::StrCat("old-", i), i == 0 ? 2 : 5);
  }
  CountTimes(usage, "late", 2);
  EXPECT_EQ(Requests(usage).at("_other"), 2);  // as often as the least used: not more
  EXPECT_EQ(Requests(usage).count("late"), 0u);
  CountTimes(usage, "late", 2);
  const auto requests = Requests(usage);
  EXPECT_EQ(requests.at("late"), 2);    // since it has its name
  EXPECT_EQ(requests.at("_other"), 2);  // what it had before stays there
  EXPECT_EQ(requests.count("old-0"), 0u);
  EXPECT_EQ(requests.at("old-1"), 5);
}

}  // namespace
}  // namespace hotlora
