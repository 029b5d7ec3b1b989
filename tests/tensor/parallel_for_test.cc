#include "src/tensor/parallel_for.h"

#include <new>
#include <set>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/tensor/allocation_peak.h"
#include "src/tensor/memory_stats.h"

namespace hotlora {
namespace {

class ParallelForTest : public testing::Test {
 protected:
  ParallelForTest() { at::set_num_threads(3); }
  ~ParallelForTest() override { at::set_num_threads(threads_); }

  // Each range and the thread that it ran on.
  using Runs = std::set<std::pair<std::pair<int64_t, int64_t>, std::thread::id>>;
  static Runs Run(int64_t begin, int64_t end, int64_t grain) {
    Runs runs;
    absl::Mutex mu;
    ParallelFor(begin, end, grain, [&](int64_t first, int64_t last) {
      absl::MutexLock lock(&mu);
      runs.insert({{first, last}, std::this_thread::get_id()});
    });
    return runs;
  }

  const int threads_ = at::get_num_threads();
};

TEST_F(ParallelForTest, RunsOnAllThreads) {
  const Runs runs = Run(10, 40, 1);
  std::set<std::pair<int64_t, int64_t>> ranges;
  std::set<std::thread::id> threads;
  for (const auto& [range, thread] : runs) {
    ranges.insert(range);
    threads.insert(thread);
  }
  EXPECT_EQ(ranges, (std::set<std::pair<int64_t, int64_t>>{{10, 20}, {20, 30}, {30, 40}}));
  EXPECT_EQ(threads.size(), 3u);
}

TEST_F(ParallelForTest, SmallOrNestedWorkHasOneRange) {
  EXPECT_EQ(Run(0, 30, 30).size(), 1u);
  EXPECT_EQ(Run(0, 30, 15).size(), 2u);
  ParallelFor(0, 3, 1, [](int64_t, int64_t) { EXPECT_EQ(Run(0, 30, 1).size(), 1u); });
  at::set_num_threads(1);
  EXPECT_EQ(Run(0, 30, 1).size(), 1u);
}

TEST_F(ParallelForTest, HandsOverTheCallersState) {
  InstallCountingCpuAllocator();
  const c10::InferenceMode guard;
  at::Tensor x = at::zeros({3});
  const AllocationPeak peak;
  ParallelFor(0, 3, 1, [&x](int64_t first, int64_t) {
    x[first].fill_(1);  // an error outside of inference mode
    at::empty({1000}, at::kByte);
  });
  EXPECT_TRUE(at::equal(x, at::ones({3})));
  EXPECT_GE(peak.bytes(), 1000);
}

TEST_F(ParallelForTest, RethrowsWhatALoopThrows) {
  EXPECT_THROW(ParallelFor(0, 3, 1,
                           [](int64_t first, int64_t) {
                             if (first == 2) {
                               throw std::bad_alloc();
                             }
                           }),
               std::bad_alloc);
  EXPECT_EQ(Run(0, 30, 1).size(), 3u);
}

}  // namespace
}  // namespace hotlora
