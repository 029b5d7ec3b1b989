#include <cuda_runtime.h>

#include "src/nn/merge_kernel.h"

namespace hotlora {
namespace {

// A thread's view of its block: it runs its own part and meets the others.
struct CudaBlock {
  template <typename Visit>
  __device__ void ForThreads(Visit visit) {
    visit(static_cast<int>(threadIdx.x), mine);
    __syncthreads();
  }
  MergeTile::ThreadState mine;
};

__global__ void __launch_bounds__(MergeTile::kThreads)
    MergeKernel(const MergeTask* tasks, int task_count, const MergeProduct* products) {
  __shared__ MergeTile::Shared shared;
  CudaBlock block;
  MergeTile::Run(tasks, task_count, products, blockIdx.x, shared, block);
}

}  // namespace

const char* LaunchMerge(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles,
                        void* stream) {
  MergeKernel<<<static_cast<unsigned>(tiles), MergeTile::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      tasks, task_count, products);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace hotlora
