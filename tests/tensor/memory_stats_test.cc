#include "src/tensor/memory_stats.h"

#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

class MemoryStatsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  static int64_t Live() { return GetMemoryStats(c10::kCPU).allocated; }
};

TEST_F(MemoryStatsTest, CountsLiveTensorsToTheByte) {
  const int64_t before = Live();
  at::Tensor a = at::empty({3, 5}, at::kFloat);
  EXPECT_EQ(Live() - before, 60);
  at::Tensor b = at::empty({7}, at::kHalf);
  EXPECT_EQ(Live() - before, 74);
  const at::Tensor view = a.view({15});
  a = at::Tensor();
  EXPECT_EQ(Live() - before, 74);  // the view keeps the storage
  EXPECT_EQ(GetMemoryStats(c10::kCPU).reserved, Live());
  EXPECT_EQ(GetMemoryStats(c10::kCPU).fragmentation(), 0.0);
}

TEST_F(MemoryStatsTest, FreedTensorsReturnToTheSameFigure) {
  const int64_t before = Live();
  for (int i = 0; i < 20; ++i) {
    const at::Tensor x = at::randn({64, 64});
    const at::Tensor y = at::linear(x, x).softmax(-1).to(at::kBFloat16);
    EXPECT_GT(Live(), before);
  }
  EXPECT_EQ(Live(), before);
}

TEST_F(MemoryStatsTest, AKeptTensorShows) {
  const int64_t before = Live();
  std::vector<at::Tensor> kept;
  for (int i = 0; i < 20; ++i) {
    kept.push_back(at::empty({1}, at::kChar));
  }
  EXPECT_EQ(Live() - before, 20);
}

TEST_F(MemoryStatsTest, FollowsAStorageThatIsReplaced) {
  const int64_t before = Live();
  at::Tensor x = at::empty({4}, at::kFloat);
  x.resize_({1024});
  EXPECT_EQ(Live() - before, 4096);
  x.set_data(at::empty({2}, at::kFloat));
  EXPECT_EQ(Live() - before, 8);
}

TEST_F(MemoryStatsTest, CountsRawAllocations) {
  const int64_t before = Live();
  c10::Allocator* const allocator = c10::GetCPUAllocator();
  void* const data = allocator->raw_allocate(1000);
  EXPECT_EQ(Live() - before, 1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u);
  allocator->raw_deallocate(data);
  EXPECT_EQ(Live(), before);
  void* const nothing = allocator->raw_allocate(0);
  allocator->raw_deallocate(nothing);
  EXPECT_EQ(Live(), before);
}

TEST_F(MemoryStatsTest, TooLargeIsOutOfMemoryAndCountsNothing) {
  const int64_t before = Live();
  c10::Allocator* const allocator = c10::GetCPUAllocator();
  EXPECT_THROW((void)allocator->allocate(std::numeric_limits<size_t>::max() - 10), c10::OutOfMemoryError);
  EXPECT_THROW((void)allocator->allocate(size_t{1} << 60), c10::OutOfMemoryError);
  EXPECT_EQ(Live(), before);
}

TEST_F(MemoryStatsTest, CountsFromManyThreads) {
  const int64_t before = Live();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int64_t n = 1; n < 2000; ++n) {
        const at::Tensor x = at::empty({n}, at::kChar);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(Live(), before);
}

}  // namespace
}  // namespace hotlora
