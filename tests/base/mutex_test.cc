#include "src/base/mutex.h"

#include <atomic>
#include <future>
#include <thread>

#include <gtest/gtest.h>

#include "src/base/steady_time.h"

namespace hotlora {
namespace {

struct Shared {
  Mutex mu;
  CondVar changed;
  int value ABSL_GUARDED_BY(mu) = 0;
};

TEST(MutexTest, OneThreadAtATime) {
  Shared shared;
  std::atomic<int> inside{0};
  const auto add = [&] {
    for (int i = 0; i < 300; ++i) {
      MutexLock lock(&shared.mu);
      shared.value += inside.exchange(1);  // 1 if the other thread is inside too
      std::this_thread::yield();
      inside = 0;
    }
  };
  std::thread other(add);
  add();
  other.join();
  MutexLock lock(&shared.mu);
  EXPECT_EQ(shared.value, 0);
}

TEST(MutexTest, AWaitReleasesTheLockAndHasItAgain) {
  for (const absl::Time deadline : {absl::InfiniteFuture(), SteadyNow() + absl::Hours(1)}) {
    Shared shared;
    std::promise<void> waits;
    std::thread waiter([&] {
      MutexLock lock(&shared.mu);
      waits.set_value();
      while (shared.value == 0 && shared.changed.WaitUntil(&shared.mu, deadline)) {
      }
      EXPECT_EQ(shared.value, 1) << "the deadline is far";
      ++shared.value;
    });
    waits.get_future().wait();
    {
      MutexLock lock(&shared.mu);  // only a wait lets it through
      shared.value = 1;
    }
    shared.changed.SignalAll();
    waiter.join();
    MutexLock lock(&shared.mu);
    EXPECT_EQ(shared.value, 2);
  }
}

TEST(MutexTest, AWaitEndsAtItsDeadline) {
  Shared shared;
  for (const absl::Duration patience : {-absl::Seconds(1), absl::ZeroDuration(), absl::Milliseconds(10)}) {
    const absl::Time deadline = SteadyNow() + patience;
    {
      MutexLock lock(&shared.mu);
      while (shared.changed.WaitUntil(&shared.mu, deadline)) {
      }
    }
    EXPECT_GE(SteadyNow(), deadline);
    MutexLock lock(&shared.mu);  // which the wait gave back whole
  }
}

}  // namespace
}  // namespace hotlora
