// The grouped merge in one launch on the simulated device: the same tables and the same guard as CUDA's.

#include "tests/fakes/sim_device/merge_kernel.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "src/nn/grouped_merge.h"
#include "src/tensor/device_kernels.h"
#include "tests/fakes/sim_device/sim_device.h"

namespace hotlora {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

// The fault: what the launch finds if no guard made the weights' device the current one.
int32_t LaunchWithoutGuard(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles,
                           void* stream) {
  c10::impl::VirtualGuardImpl(kType).setDevice(SimDevice(0));
  return LaunchSimMerge(tasks, task_count, products, tiles, stream);
}
constexpr DeviceKernels kUnguarded = {sizeof(DeviceKernels), HOTLORA_VERSION, &LaunchWithoutGuard, &SimMergeErrorText};

int32_t LaunchThatFails(const MergeTask*, int, const MergeProduct*, int64_t, void*) { return 700; }
constexpr DeviceKernels kFailing = {sizeof(DeviceKernels), HOTLORA_VERSION, &LaunchThatFails,
                                    [](int32_t) { return "the launch failed"; }};

class SimMergeKernelTest : public ::testing::Test {
 protected:
  SimMergeKernelTest() { RegisterSimDevice(); }
  ~SimMergeKernelTest() override {
    SetKernels(kType, nullptr);
    ClearSimError();
  }

  // Merges a product into one weight and restores another, on `device`; both as one tensor on the CPU.
  at::Tensor Merge(c10::Device device) const {
    ModuleDelta delta;
    delta.scale = 0.5;
    delta.change = LowRank{down_.to(device), up_.to(device), {}};
    const std::vector<WeightedDelta> deltas = {{&delta, 2.0}};
    const at::Tensor clean = clean_.to(device), merged = at::empty_like(clean), restored = at::empty_like(clean);
    const std::vector<WeightToMerge> weights = {{merged, clean, deltas}, {restored, clean, {}}};
    MergeWeights(weights, DoraWeighting::kScaledChange);
    return at::cat({merged, restored}).cpu();
  }

  static int64_t Launches() { return SimLaunches()["merge"]; }

 private:
  const c10::InferenceMode inference_;
  const at::Tensor clean_ = at::randn({70, 130}), down_ = at::randn({8, 130}), up_ = at::randn({70, 8});
};

// The thread's current device is sim:0.
TEST_F(SimMergeKernelTest, RebuildsTheWeightsOfEachDeviceInOneLaunch) {
  SetKernels(kType, &kSimKernels);
  const at::Tensor expected = Merge(c10::kCPU);
  for (const int index : {0, 1}) {
    const int64_t before = Launches();
    EXPECT_TRUE(at::allclose(Merge(SimDevice(index)), expected, 1e-5, 1e-5)) << index;
    EXPECT_EQ(Launches(), before + 1) << index;
  }
}

// The tables leave the host by a copy that is not done when the merge returns.
TEST_F(SimMergeKernelTest, WaitsForNothing) {
  SetKernels(kType, &kSimKernels);
  const at::Tensor clean = at::randn({70, 130}).to(SimDevice()), live = at::empty_like(clean);
  const std::vector<WeightToMerge> weights = {{live, clean, {}}};
  const SimCounts before = SimCountsOfThisThread();
  MergeWeights(weights, DoraWeighting::kScaledChange);
  EXPECT_EQ((SimCountsOfThisThread() - before).host_waits(), 0);
  EXPECT_TRUE(at::equal(live.cpu(), clean.cpu()));
}

TEST_F(SimMergeKernelTest, AnErrorOfTheLaunchKeepsItsCode) {
  SetKernels(kType, &kFailing);
  try {
    Merge(SimDevice());
    ADD_FAILURE() << "nothing was thrown";
  } catch (const c10::AcceleratorError& error) {
    EXPECT_EQ(error.get_error_code(), 700);
    EXPECT_NE(std::string(error.what_without_backtrace()).find("merging 2 weights: the launch failed"),
              std::string::npos);
  }
}

TEST_F(SimMergeKernelTest, LaunchWithoutDeviceGuardIsAnError) {
  SetKernels(kType, &kUnguarded);
  EXPECT_NO_THROW(Merge(SimDevice(0)));
  EXPECT_THROW(Merge(SimDevice(1)), c10::AcceleratorError);
}

}  // namespace
}  // namespace hotlora
