#include "src/nn/adapter_schedule.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

WeightedAdapter Adapter(char digit, double start, double end, double text_weight = 0.0) {
  WeightedAdapter adapter{nullptr, std::string(64, digit), 0.5, text_weight};
  adapter.range = {start, end};
  return adapter;
}

// What the set of each evaluation holds: "a" in full, "(a)" on the text encoders alone.
std::vector<std::string> Sets(const AdapterSchedule& schedule, uint32_t evaluations) {
  std::vector<std::string> sets;
  for (uint32_t i = 0; i < evaluations; ++i) {
    std::string& set = sets.emplace_back();
    for (const WeightedAdapter& adapter : schedule.at(i).set.adapters) {
      const std::string name(1, adapter.content_sha256.front());
      set += adapter.weight == 0.0 && adapter.blocks.empty() ? "(" + name + ")" : name;
    }
  }
  return sets;
}

TEST(AdapterScheduleTest, OneSetIsInEffectAllTheTime) {
  EXPECT_TRUE(AdapterSchedule().constant());
  EXPECT_EQ(AdapterSchedule().fingerprint(), "");
  const AdapterSet set = {{Adapter('a', 0, 1), Adapter('b', 0, 1)}};
  const AdapterSchedule plain(set), ranged(set, 7);
  EXPECT_TRUE(ranged.constant());
  EXPECT_EQ(plain.fingerprint(), set.Fingerprint());
  EXPECT_EQ(ranged.fingerprint(), set.Fingerprint());
  EXPECT_EQ(ranged.at(1000).fingerprint, set.Fingerprint());
  EXPECT_EQ(ranged.NextChange(0), AdapterSchedule::kNever);
  EXPECT_FALSE(ranged.ChangesAt(0));
}

TEST(AdapterScheduleTest, SetsFollowTheRanges) {
  const AdapterSchedule schedule({{Adapter('a', 0, 0.5), Adapter('b', 0.5, 1), Adapter('c', 0.25, 0.75, 1.0)}}, 7);
  EXPECT_EQ(Sets(schedule, 8), std::vector<std::string>({"a(c)", "a(c)", "ac", "c", "bc", "b(c)", "b(c)", "b(c)"}));
  EXPECT_FALSE(schedule.constant());
  std::vector<uint32_t> changes;
  for (uint32_t i = 0; i < 10; ++i) {
    if (schedule.ChangesAt(i)) {
      changes.push_back(i);
    }
  }
  EXPECT_EQ(changes, std::vector<uint32_t>({2, 3, 4, 5}));
  EXPECT_EQ(schedule.NextChange(0), 2u);
  EXPECT_EQ(schedule.NextChange(2), 3u);
  EXPECT_EQ(schedule.NextChange(5), AdapterSchedule::kNever);
  for (const WeightedAdapter& adapter : schedule.at(4).set.adapters) {
    EXPECT_TRUE(adapter.range.whole());
  }
}

TEST(AdapterScheduleTest, TheTextEncodersSetIsTheSameInAllParts) {
  const AdapterSchedule schedule({{Adapter('a', 0, 0.5, 0.25), Adapter('b', 0.5, 1)}}, 4);
  for (const uint32_t evaluation : {0, 2}) {
    const AdapterSet& set = schedule.at(evaluation).set;
    EXPECT_EQ(set.adapters.front().content_sha256, std::string(64, 'a'));
    EXPECT_EQ(set.adapters.front().text_encoder_weight, 0.25);
  }
  EXPECT_EQ(schedule.at(2).set.adapters.front().weight, 0.0);
}

TEST(AdapterScheduleTest, ARangeWithoutEvaluationsHasNoEffectAtAll) {
  const AdapterSchedule schedule({{Adapter('a', 0.4, 0.45, 1.0), Adapter('b', 0, 1)}}, 4);
  EXPECT_TRUE(schedule.constant());
  EXPECT_EQ(schedule.fingerprint(), (AdapterSet{{Adapter('b', 0, 1)}}).Fingerprint());
}

TEST(AdapterScheduleTest, WeightsByBlockEndWithTheRange) {
  WeightedAdapter adapter = Adapter('a', 0, 0.5, 0.25);
  adapter.blocks = {{"up", 0.75}};
  const AdapterSchedule schedule({{adapter}}, 2);
  EXPECT_EQ(schedule.at(0).set.adapters.front().blocks.size(), 1u);
  EXPECT_TRUE(schedule.at(1).set.adapters.front().blocks.empty());
}

TEST(AdapterScheduleTest, FingerprintsTellWhatChangesAndWhen) {
  const AdapterSchedule half({{Adapter('a', 0, 0.5)}}, 8), same({{Adapter('a', 0, 0.55)}}, 8),
      third({{Adapter('a', 0, 0.4)}}, 8), second({{Adapter('a', 0.5, 1)}}, 8), whole({{Adapter('a', 0, 1)}}, 8);
  EXPECT_EQ(half.fingerprint(), same.fingerprint()) << "the same evaluations";
  EXPECT_NE(half.fingerprint(), third.fingerprint());
  EXPECT_NE(half.fingerprint(), second.fingerprint());
  EXPECT_NE(half.fingerprint(), whole.fingerprint());
}

bool Equal(const AdapterSchedule& a, uint32_t next_a, const AdapterSchedule& b, uint32_t next_b) {
  return FitFromHere(a, next_a, b, next_b, [](const auto& x, const auto& y) { return x.fingerprint == y.fingerprint; });
}

TEST(AdapterScheduleTest, TwoImagesFitIfTheyDoFromHereOn) {
  const AdapterSchedule half({{Adapter('a', 0, 0.5)}}, 8), whole({{Adapter('a', 0, 1)}}, 8), base;
  EXPECT_TRUE(Equal(half, 0, half, 0));
  EXPECT_FALSE(Equal(half, 1, half, 0)) << "they part at the fourth evaluation";
  EXPECT_TRUE(Equal(half, 4, half, 5));
  EXPECT_FALSE(Equal(half, 0, whole, 0)) << "they begin with one set and part later";
  EXPECT_TRUE(Equal(half, 4, base, 0));
  EXPECT_TRUE(Equal(base, 0, half, 6));
  EXPECT_FALSE(Equal(half, 3, base, 0));
}

// Each pair of parts is asked about once, and against a comparison evaluation by evaluation.
TEST(AdapterScheduleTest, FitsAsEveryEvaluationSays) {
  const std::vector<double> ends = {0.0, 0.2, 0.5, 0.7, 1.0};
  std::vector<AdapterSchedule> schedules;
  for (size_t i = 0; i < ends.size(); ++i) {
    for (size_t j = i + 1; j < ends.size(); ++j) {
      schedules.emplace_back(AdapterSet{{Adapter('a', ends[i], ends[j]), Adapter('b', 0, ends[j])}}, 10);
    }
  }
  int fits = 0;
  for (const AdapterSchedule& a : schedules) {
    for (const AdapterSchedule& b : schedules) {
      for (uint32_t next = 0; next < 10; ++next) {
        bool expected = true;
        for (uint32_t i = 0; i < 20; ++i) {
          expected = expected && a.at(next + i).fingerprint == b.at(i).fingerprint;
        }
        fits += expected ? 1 : 0;
        ASSERT_EQ(Equal(a, next, b, 0), expected);
      }
    }
  }
  EXPECT_GT(fits, 20);
}

}  // namespace
}  // namespace hotlora
