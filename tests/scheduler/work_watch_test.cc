#include "src/scheduler/work_watch.h"

#include <optional>
#include <string>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

constexpr Work kStep{WorkKind::kStep, {1024, 1024, 1}};
constexpr Work kLargeStep{WorkKind::kStep, {2048, 2048, 1}};
constexpr Work kDecode{WorkKind::kDecode, {1024, 1024}};

class WorkWatchTest : public ::testing::Test {
 protected:
  // Time passes with a check each second, as in the engine.
  std::vector<StuckWork> Pass(absl::Duration duration) {
    std::vector<StuckWork> stuck;
    for (absl::Duration passed; passed < duration; passed += absl::Seconds(1)) {
      Jump(std::min(duration - passed, absl::Seconds(1)));
      stuck = watch_.Check();
    }
    return stuck;
  }

  // Time in which nothing of this process runs.
  void Jump(absl::Duration duration) { now_ += absl::ToChronoNanoseconds(duration); }

  void Do(const Work& work, absl::Duration duration) {
    const auto mark = watch_.Begin(work);
    Pass(duration);
  }

  std::chrono::steady_clock::time_point now_{std::chrono::hours(1)};
  WorkWatch watch_{{}, [this] { return now_; }};
};

TEST_F(WorkWatchTest, UnknownWorkIsStuckAfterTenMinutes) {
  const auto mark = watch_.Begin(kStep);
  EXPECT_TRUE(Pass(absl::Seconds(599)).empty());
  const auto stuck = Pass(absl::Seconds(1));
  ASSERT_EQ(stuck.size(), 1u);
  EXPECT_EQ(stuck[0].text, "a step of 1024x1024 (rows: 1) has taken 10m; it usually takes (not known)");
}

TEST_F(WorkWatchTest, KnownWorkIsStuckAfterTenTimesWhatItUsuallyTakesButNotBeforeAMinute) {
  Do(kStep, absl::Milliseconds(400));
  Do(kLargeStep, absl::Seconds(9));
  {
    const auto mark = watch_.Begin(kStep);
    EXPECT_TRUE(Pass(absl::Seconds(59)).empty());
    const auto stuck = Pass(absl::Seconds(6));
    ASSERT_EQ(stuck.size(), 1u);
    EXPECT_EQ(stuck[0].text, "a step of 1024x1024 (rows: 1) has taken 1m5s; it usually takes 400ms");
  }
  const auto mark = watch_.Begin(kLargeStep);
  EXPECT_TRUE(Pass(absl::Seconds(89)).empty());
  EXPECT_EQ(Pass(absl::Seconds(1)).size(), 1u);
}

TEST_F(WorkWatchTest, WorkThatGoesOnIsNotStuck) {
  {
    const auto mark = watch_.Begin(kStep);
    EXPECT_FALSE(Pass(absl::Minutes(11)).empty());
  }
  EXPECT_TRUE(watch_.Check().empty());
}

TEST_F(WorkWatchTest, TellsKindsAndThreadsApart) {
  Do(kStep, absl::Seconds(1));
  const auto step = watch_.Begin(kStep);
  const auto decode = watch_.Begin(kDecode);
  auto stuck = Pass(absl::Minutes(2));
  ASSERT_EQ(stuck.size(), 1u);
  EXPECT_EQ(stuck[0].work.kind, WorkKind::kStep);
  stuck = Pass(absl::Minutes(8));
  ASSERT_EQ(stuck.size(), 2u);
  EXPECT_EQ(stuck[1].work.kind, WorkKind::kDecode);
  EXPECT_EQ(stuck[1].text, "a decode of 1024x1024 has taken 10m; it usually takes (not known)");
}

TEST_F(WorkWatchTest, ForgivesAnUnusualDuration) {
  Do(kStep, absl::Seconds(1));
  Do(kStep, absl::Minutes(9));
  Do(kStep, absl::Seconds(1));
  const auto mark = watch_.Begin(kStep);
  EXPECT_EQ(Pass(absl::Minutes(1)).size(), 1u);
}

TEST_F(WorkWatchTest, WhatDoesNotCountLeavesTheWorkUnknown) {
  {
    auto mark = watch_.Begin(kStep);
    mark.DoNotCount();
  }
  const auto mark = watch_.Begin(kStep);
  EXPECT_TRUE(Pass(absl::Minutes(9)).empty());
}

TEST_F(WorkWatchTest, IsHopelessTenMinutesLaterOrAfterFiveTimesTheLimit) {
  Do(kStep, absl::Seconds(1));
  Do(kLargeStep, absl::Minutes(1));
  {
    const auto mark = watch_.Begin(kStep);
    EXPECT_FALSE(Pass(absl::Seconds(659)).at(0).hopeless);
    EXPECT_TRUE(Pass(absl::Seconds(1)).at(0).hopeless);
  }
  const auto mark = watch_.Begin(kLargeStep);
  EXPECT_FALSE(Pass(absl::Seconds(3599)).at(0).hopeless);
  EXPECT_TRUE(Pass(absl::Seconds(1)).at(0).hopeless);
}

TEST_F(WorkWatchTest, TimeInWhichTheProcessStoodStillDoesNotCount) {
  Do(kStep, absl::Seconds(1));
  const auto mark = watch_.Begin(kStep);
  Pass(absl::Seconds(1));
  Jump(absl::Hours(8));
  EXPECT_TRUE(watch_.Check().empty());
  EXPECT_EQ(Pass(absl::Minutes(1)).size(), 1u);
}

TEST_F(WorkWatchTest, RemembersTheShapesThatWereUsedLast) {
  Do(kStep, absl::Seconds(1));
  for (uint32_t i = 0; i < WorkWatch::kShapes; ++i) {
    Do({WorkKind::kStep, {64, 64, i}}, absl::Seconds(1));
  }
  const auto forgotten = watch_.Begin(kStep);
  const auto known = watch_.Begin({WorkKind::kStep, {64, 64, 0}});
  const auto stuck = Pass(absl::Minutes(2));
  ASSERT_EQ(stuck.size(), 1u);
  EXPECT_EQ(stuck[0].work.shape.width, 64u);
}

}  // namespace
}  // namespace hotlora
