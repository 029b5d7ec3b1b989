#include "client/bench/soak_record.h"

#include <random>
#include <set>

#include "absl/strings/str_split.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr uint32_t kCycle = 200;

// A healthy soak of 2000 swaps: noise, but no drift.
SoakRecord Healthy() {
  std::mt19937_64 random(1);
  std::normal_distribution<double> noise;
  SoakRecord record;
  record.cycle = kCycle;
  for (uint32_t i = 0; i < 10 * kCycle; ++i) {
    SoakSwap swap;
    // Some requests take five times as long as others, and the machine is slow for a while.
    const double machine = (i / 300 % 2 == 0 ? 1.0 : 1.7) * 0.020;
    swap.seconds = machine * (1.5 + i % kCycle % 5) * (1.0 + 0.05 * noise(random));
    swap.twin_seconds = machine * (1.0 + 0.05 * noise(random));
    swap.changed = true;
    record.swaps.push_back(swap);
    if (i % 20 == 0) {
      SoakIdle idle;
      idle.swaps = i;
      idle.figures = {1000, 1000, i, static_cast<uint64_t>(4e8 + 1e6 * noise(random)), 15, 27};
      record.idle.push_back(idle);
    }
  }
  record.base_before.set_intact(true);
  record.base_after.set_intact(true);
  return record;
}

std::set<std::string> Failed(const SoakRecord& record, bool exact_only = false) {
  std::set<std::string> failed;
  for (const Gate& gate : JudgeSoak(record, exact_only)) {
    if (!gate.passed) {
      failed.insert(gate.name);
    }
  }
  return failed;
}

TEST(JudgeSoakTest, NoiseAloneIsNoDrift) {
  EXPECT_THAT(Failed(Healthy()), IsEmpty());
  EXPECT_EQ(JudgeSoak(Healthy(), false).size(), 8u);
  EXPECT_EQ(JudgeSoak(Healthy(), true).size(), 6u);
}

TEST(JudgeSoakTest, OneByteMoreIsTooMuch) {
  SoakRecord record = Healthy();
  record.idle[40].figures.allocated_bytes += 1;
  EXPECT_THAT(Failed(record, true), UnorderedElementsAre("allocated bytes"));
}

TEST(JudgeSoakTest, TheHostTierMayComeAndGo) {
  SoakRecord record = Healthy();
  for (SoakIdle& idle : record.idle) {
    idle.figures.allocated_bytes += idle.figures.host_tier_bytes;
    idle.figures.reserved_bytes += idle.figures.host_tier_bytes;
  }
  EXPECT_TRUE(HostTierMoves(record));
  EXPECT_THAT(Failed(record, true), IsEmpty());
  record.idle[40].figures.host_tier_bytes -= 1;
  EXPECT_THAT(Failed(record, true), UnorderedElementsAre("allocated bytes", "reserved bytes"));
}

TEST(JudgeSoakTest, OneOpenFileMoreInTheSecondHalfIsTooMuch) {
  SoakRecord record = Healthy();
  record.idle[10].figures.open_files = 16;
  EXPECT_THAT(Failed(record, true), IsEmpty());
  record.idle.back().figures.open_files = 17;
  EXPECT_THAT(Failed(record, true), UnorderedElementsAre("open files"));
}

TEST(JudgeSoakTest, ThreadsMayBeFourMoreInThePoolAndNotFive) {
  SoakRecord record = Healthy();
  record.idle.back().figures.threads = 31;
  EXPECT_THAT(Failed(record, true), IsEmpty());
  record.idle.back().figures.threads = 32;
  EXPECT_THAT(Failed(record, true), UnorderedElementsAre("threads"));
}

TEST(JudgeSoakTest, FourKiBASwapIsSeenInRss) {
  SoakRecord record = Healthy();
  for (SoakIdle& idle : record.idle) {
    idle.figures.resident_bytes += 4096 * idle.swaps;
  }
  EXPECT_THAT(Failed(record), UnorderedElementsAre("RSS"));
}

// What cannot be told is no pass.
TEST(JudgeSoakTest, NoiseThatHidesALeakFails) {
  SoakRecord record = Healthy();
  std::mt19937_64 random(2);
  std::normal_distribution<double> noise(0.0, 2e7);
  for (SoakIdle& idle : record.idle) {
    idle.figures.resident_bytes += static_cast<int64_t>(noise(random));
  }
  EXPECT_THAT(Failed(record), UnorderedElementsAre("RSS"));
}

TEST(JudgeSoakTest, ATenthSlowerInTheEndIsSeenInLatency) {
  SoakRecord record = Healthy();
  for (size_t i = 0; i < record.swaps.size(); ++i) {
    record.swaps[i].seconds *= 1.0 + 0.1 * i / record.swaps.size();
  }
  EXPECT_THAT(Failed(record), UnorderedElementsAre("latency"));
}

TEST(JudgeSoakTest, AMachineThatIsSlowerInTheEndIsNoDrift) {
  SoakRecord record = Healthy();
  for (size_t i = 5 * kCycle; i < record.swaps.size(); ++i) {
    record.swaps[i].seconds *= 2;
    record.swaps[i].twin_seconds *= 2;
  }
  EXPECT_THAT(Failed(record), IsEmpty());
}

TEST(JudgeSoakTest, LessThanTwoCyclesTellNothingOfLatency) {
  SoakRecord record = Healthy();
  record.swaps.resize(2 * kCycle - 1);
  EXPECT_THAT(Failed(record), UnorderedElementsAre("latency"));
}

TEST(JudgeSoakTest, BaseWeightsAndCallsMustBeAsTheyShould) {
  SoakRecord record = Healthy();
  record.base_after.set_mismatches(1);
  record.surprises.push_back("broken:1: OK");
  EXPECT_THAT(Failed(record), UnorderedElementsAre("base weights", "calls"));
}

TEST(SoakCsvTest, EveryLineHasEveryColumn) {
  const std::vector<std::string> lines = absl::StrSplit(SoakCsv(Healthy()), '\n', absl::SkipEmpty());
  EXPECT_EQ(lines.size(), 1 + 2000 + 100);
  const std::vector<std::string> head = absl::StrSplit(lines[0], ',');
  for (const std::string& line : lines) {
    const std::vector<std::string> cells = absl::StrSplit(line, ',');
    ASSERT_EQ(cells.size(), head.size()) << line;
  }
}

}  // namespace
}  // namespace hotlora
