#ifndef HOTLORA_TESTS_CUDA_FAKE_CUDA_RUNTIME_H_
#define HOTLORA_TESTS_CUDA_FAKE_CUDA_RUNTIME_H_

// Linked in place of libcudart to the objects of libhotlora_cuda.so: no device, kernels do not run. Keeps the thread's
// last error as the real one does, and the last launch.

#include <cuda_runtime_api.h>

namespace hotlora {

struct FakeCudaRuntime {
  cudaError_t last_error = cudaSuccess;  // what cudaGetLastError gives and clears
  cudaError_t next_launch = cudaSuccess;

  int launches = 0;
  dim3 grid, block;
  cudaStream_t stream = nullptr;
  const void* tasks = nullptr;  // the kernel's arguments
  int task_count = 0;
  const void* products = nullptr;
};

FakeCudaRuntime& FakeCuda();

}  // namespace hotlora

#endif  // HOTLORA_TESTS_CUDA_FAKE_CUDA_RUNTIME_H_
