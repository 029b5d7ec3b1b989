// What the program finds in libhotlora_cuda.so.

#include <cuda_runtime_api.h>

#include "src/cuda/merge_kernel.h"
#include "src/tensor/device_kernels.h"

namespace {

const char* ErrorText(int32_t code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const hotlora::DeviceKernels hotlora_cuda_kernels = {
    sizeof(hotlora::DeviceKernels), HOTLORA_VERSION, hotlora::LaunchMerge, ErrorText};
