#ifndef HOTLORA_TESTS_FAKES_SIM_DEVICE_MERGE_KERNEL_H_
#define HOTLORA_TESTS_FAKES_SIM_DEVICE_MERGE_KERNEL_H_

#include <cstdint>

#include "src/nn/merge_tile.h"
#include "src/tensor/device_kernels.h"

namespace hotlora {

// The grouped merge (src/nn/grouped_merge.h) as a launch on the simulated device: queued on `stream`, the native handle
// of one of its streams; nullptr is the default stream of the thread's current device. As on a GPU, that must be the
// device that holds the tables.
//
// Errors   1: the tables or what they point to are not in memory of the stream's device; 0: none
int32_t LaunchSimMerge(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles,
                       void* stream);

// The text of that error.
const char* SimMergeErrorText(int32_t error);

// Both, for SetKernels.
inline constexpr DeviceKernels kSimKernels = {sizeof(DeviceKernels), HOTLORA_VERSION, &LaunchSimMerge,
                                              &SimMergeErrorText};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_SIM_DEVICE_MERGE_KERNEL_H_
