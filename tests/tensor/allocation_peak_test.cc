#include "src/tensor/allocation_peak.h"

#include <thread>

#include <ATen/ATen.h>
#include <ATen/ThreadLocalState.h>
#include <gtest/gtest.h>

#include "src/tensor/memory_stats.h"

namespace hotlora {
namespace {

class AllocationPeakTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  static at::Tensor Bytes(int64_t bytes) { return at::empty({bytes}, at::kByte); }
};

TEST_F(AllocationPeakTest, IsTheMostThatWasHeldAtOnce) {
  const AllocationPeak peak;
  EXPECT_EQ(peak.bytes(), 0);
  at::Tensor a = Bytes(1000);
  a = at::Tensor();
  const at::Tensor b = Bytes(700), c = Bytes(600);
  EXPECT_EQ(peak.bytes(), 1300);
}

TEST_F(AllocationPeakTest, BeginsWithWhatIsHeldThen) {
  at::Tensor before = Bytes(5000);
  const AllocationPeak peak;
  before = at::Tensor();
  const at::Tensor after = Bytes(6000);
  EXPECT_EQ(peak.bytes(), 1000);
}

TEST_F(AllocationPeakTest, LeavesOtherThreadsOut) {
  const AllocationPeak peak;
  std::thread([] { Bytes(100000); }).join();
  const at::Tensor own = Bytes(10);
  EXPECT_EQ(peak.bytes(), 10);
}

TEST_F(AllocationPeakTest, CountsThreadsThatTakeUpTheState) {
  const AllocationPeak peak;
  const at::Tensor own = Bytes(10);
  const at::ThreadLocalState state;
  std::thread([&state] {
    const at::ThreadLocalStateGuard guard(state);
    Bytes(100000);
    Bytes(100);
  }).join();
  EXPECT_EQ(peak.bytes(), 100010);
}

TEST_F(AllocationPeakTest, EndsWithTheObject) {
  { const AllocationPeak peak; }
  const AllocationPeak peak;
  {
    const AllocationPeak inner;
    const at::Tensor a = Bytes(100);
    EXPECT_EQ(inner.bytes(), 100);
  }
  EXPECT_EQ(peak.bytes(), 0);
  const at::Tensor b = Bytes(10);
  EXPECT_EQ(peak.bytes(), 10);
}

// oneDNN's scratch memory comes from the same allocator.
TEST_F(AllocationPeakTest, SeesWhatAConvolutionTakes) {
  const at::Tensor input = at::ones({1, 32, 64, 64}), weight = at::ones({32, 32, 3, 3});
  const AllocationPeak peak;
  const at::Tensor output = at::conv2d(input, weight);
  EXPECT_GE(peak.bytes(), static_cast<int64_t>(output.nbytes()));
}

}  // namespace
}  // namespace hotlora
