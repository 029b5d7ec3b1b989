#include "src/tensor/threads_for.h"

#include <atomic>
#include <cstdint>
#include <thread>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/tensor/parallel_for.h"

extern "C" __attribute__((weak)) int MKL_Get_Max_Threads();

namespace hotlora {
namespace {

constexpr double kFew = 1e5, kMany = 1e9;

class ThreadsForTest : public testing::Test {
 protected:
  ThreadsForTest() { at::set_num_threads(3); }
  ~ThreadsForTest() override { at::set_num_threads(threads_); }

  static int Ranges() {
    std::atomic<int> ranges = 0;
    ParallelFor(0, 30, 1, [&](int64_t, int64_t) { ++ranges; });
    return ranges;
  }

  const int threads_ = at::get_num_threads();
};

TEST_F(ThreadsForTest, LittleWorkStaysOnTheCallingThread) {
  const ThreadsFor threads(kFew);
  EXPECT_EQ(Ranges(), 1);
  EXPECT_EQ(at::get_num_threads(), 1);
}

// Attention multiplies by MKL, which at::set_num_threads gives a number of its own.
TEST_F(ThreadsForTest, MklKeepsToTheSameNumber) {
  if (MKL_Get_Max_Threads == nullptr) {
    GTEST_SKIP() << "this LibTorch has no MKL";
  }
  {
    const ThreadsFor threads(kFew);
    EXPECT_EQ(MKL_Get_Max_Threads(), 1);
    const ThreadsFor inner(kFew);
  }
  EXPECT_EQ(MKL_Get_Max_Threads(), 3);
}

TEST_F(ThreadsForTest, MuchWorkIsShared) {
  const ThreadsFor threads(kMany);
  EXPECT_EQ(Ranges(), 3);
}

TEST_F(ThreadsForTest, EndsWithItsScope) {
  {
    const ThreadsFor outer(kFew);
    {
      const ThreadsFor inner(kMany);
      EXPECT_EQ(Ranges(), 1) << "an inner scope adds no threads";
    }
    { const ThreadsFor inner(kFew); }
    EXPECT_EQ(Ranges(), 1) << "an inner scope leaves the outer one in force";
  }
  EXPECT_EQ(Ranges(), 3);
}

TEST_F(ThreadsForTest, EndsWhenWorkThrows) {
  EXPECT_THROW(([] {
                 const ThreadsFor threads(kFew);
                 at::ones({2, 3}).mm(at::ones({2, 3}));
               }()),
               c10::Error);
  EXPECT_EQ(Ranges(), 3);
}

TEST_F(ThreadsForTest, LeavesOtherThreadsAlone) {
  const ThreadsFor threads(kFew);
  int ranges = 0;
  std::thread([&] { ranges = Ranges(); }).join();
  EXPECT_EQ(ranges, 3);
}

}  // namespace
}  // namespace hotlora
