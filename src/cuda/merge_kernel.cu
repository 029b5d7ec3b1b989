#include <cuda_runtime.h>

#include "src/cuda/merge_kernel.h"
#include "src/nn/merge_tile.h"

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

int32_t LaunchMerge(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles, void* stream) {
  void* arguments[] = {&tasks, &task_count, &products};
  const cudaError_t error = cudaLaunchKernel(MergeKernel, dim3(static_cast<unsigned>(tiles)), dim3(MergeTile::kThreads),
                                             arguments, 0, static_cast<cudaStream_t>(stream));
  if (error != cudaSuccess) {
    // The thread's last error is now this one, and the caller is told of it. Left there, LibTorch would take it for its
    // own.
    cudaGetLastError();
  }
  return error;
}

}  // namespace hotlora
