#include "tests/cuda/fake_cuda_runtime.h"

namespace hotlora {

FakeCudaRuntime& FakeCuda() {
  static FakeCudaRuntime runtime;
  return runtime;
}

}  // namespace hotlora

using hotlora::FakeCuda;

extern "C" {

cudaError_t cudaLaunchKernel(const void*, dim3 grid, dim3 block, void** arguments, size_t, cudaStream_t stream) {
  hotlora::FakeCudaRuntime& cuda = FakeCuda();
  ++cuda.launches;
  cuda.grid = grid;
  cuda.block = block;
  cuda.stream = stream;
  cuda.tasks = *static_cast<const void**>(arguments[0]);
  cuda.task_count = *static_cast<int*>(arguments[1]);
  cuda.products = *static_cast<const void**>(arguments[2]);
  if (cuda.next_launch != cudaSuccess) {
    cuda.last_error = cuda.next_launch;
  }
  return cuda.next_launch;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = FakeCuda().last_error;
  FakeCuda().last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "an error"; }

// What nvcc adds to an object: it makes the kernels known when the program starts, and launches those of <<<>>>.
void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*, int*) {}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaErrorUnknown; }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaErrorUnknown; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorUnknown; }

}  // extern "C"
