// What libhotlora_cuda.so gives the program, on a CUDA runtime whose answers the test controls.

#include <gtest/gtest.h>

#include "src/nn/merge_tile.h"
#include "src/tensor/device_kernels.h"
#include "tests/cuda/fake_cuda_runtime.h"

extern "C" const hotlora::DeviceKernels hotlora_cuda_kernels;

namespace hotlora {
namespace {

class CudaKernelsTest : public testing::Test {
 protected:
  CudaKernelsTest() { FakeCuda() = {}; }

  int32_t LaunchMerge() { return hotlora_cuda_kernels.launch_merge(&task_, 1, &product_, 321, stream_); }

  MergeTask task_{};
  MergeProduct product_{};
  int handle_ = 0;
  void* const stream_ = &handle_;
};

TEST_F(CudaKernelsTest, SayWhatTheyWereBuiltAs) {
  EXPECT_EQ(hotlora_cuda_kernels.size, sizeof(DeviceKernels));
  EXPECT_STREQ(hotlora_cuda_kernels.release, HOTLORA_VERSION);
}

TEST_F(CudaKernelsTest, AMergeIsOneBlockForEachTileOnTheStream) {
  EXPECT_EQ(LaunchMerge(), 0);
  const FakeCudaRuntime& cuda = FakeCuda();
  EXPECT_EQ(cuda.launches, 1);
  EXPECT_EQ(cuda.grid.x, 321U);
  EXPECT_EQ(cuda.grid.y, 1U);
  EXPECT_EQ(cuda.block.x, static_cast<unsigned>(MergeTile::kThreads));
  EXPECT_EQ(cuda.stream, stream_);
  EXPECT_EQ(cuda.tasks, &task_);
  EXPECT_EQ(cuda.task_count, 1);
  EXPECT_EQ(cuda.products, &product_);
}

TEST_F(CudaKernelsTest, AnErrorOfEarlierWorkIsNeitherReportedNorTakenAway) {
  FakeCuda().last_error = cudaErrorMemoryAllocation;
  EXPECT_EQ(LaunchMerge(), 0);
  EXPECT_EQ(FakeCuda().last_error, cudaErrorMemoryAllocation);
}

TEST_F(CudaKernelsTest, AnErrorOfTheLaunchIsReportedAndNotLeftForOthers) {
  FakeCuda().next_launch = cudaErrorIllegalAddress;
  const int32_t error = LaunchMerge();
  EXPECT_EQ(error, cudaErrorIllegalAddress);
  EXPECT_STREQ(hotlora_cuda_kernels.error_text(error), "an error");
  EXPECT_EQ(FakeCuda().last_error, cudaSuccess);
}

}  // namespace
}  // namespace hotlora
