#include "src/base/periodic_thread.h"

#include <atomic>
#include <optional>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(PeriodicThreadTest, WorksAgainAndAgain) {
  absl::BlockingCounter left(3);
  std::atomic<int> runs{0};
  PeriodicThread thread("test", absl::Milliseconds(1), [&] {
    if (++runs <= 3) {
      left.DecrementCount();
    }
  });
  left.Wait();
}

TEST(PeriodicThreadTest, EndsWithinAPauseAndWorksNoMore) {
  std::atomic<int> runs{0};
  {
    PeriodicThread thread("test", absl::InfiniteDuration(), [&] { ++runs; });
  }
  EXPECT_EQ(runs, 0);
}

TEST(PeriodicThreadTest, WaitsForWorkThatIsUnderWay) {
  absl::Notification begun, go_on;
  std::atomic<bool> finished{false};
  std::optional<PeriodicThread> thread;
  thread.emplace("test", absl::ZeroDuration(), [&] {
    if (!begun.HasBeenNotified()) {
      begun.Notify();
      go_on.WaitForNotification();
      finished = true;
    }
  });
  begun.WaitForNotification();
  go_on.Notify();
  thread.reset();
  EXPECT_TRUE(finished);
}

}  // namespace
}  // namespace hotlora
