#ifndef HOTLORA_SRC_CUDA_MERGE_KERNEL_H_
#define HOTLORA_SRC_CUDA_MERGE_KERNEL_H_

#include <cstdint>

namespace hotlora {

struct MergeProduct;
struct MergeTask;

// DeviceKernels::launch_merge for CUDA: `stream` is a cudaStream_t, the result a cudaError_t.
int32_t LaunchMerge(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles, void* stream);

}  // namespace hotlora

#endif  // HOTLORA_SRC_CUDA_MERGE_KERNEL_H_
