#ifndef HOTLORA_SRC_TENSOR_ALLOCATION_PEAK_H_
#define HOTLORA_SRC_TENSOR_ALLOCATION_PEAK_H_

#include <cstdint>
#include <memory>

#include <c10/util/ThreadLocalDebugInfo.h>

namespace hotlora {

// The most bytes of tensors that one thread has held, beyond what it held when this object was made.
//
// The allocators (the counting one of memory_stats.h, LibTorch's caching one on a GPU) report each block to the thread
// that asks for it or frees it, so work on other threads at the same time does not show. A block that the thread frees
// counts as given back, no matter who asked for it. Not counted: what libraries take from the system by themselves
// (code that oneDNN makes, workspaces of MKL), stacks of threads, and what worker threads of a parallel loop allocate,
// which LibTorch's kernels do not do with tensors.
//
// Threads  made, read and destroyed on the thread it measures; of two that are nested only the inner one measures
class AllocationPeak {
 public:
  AllocationPeak();

  int64_t bytes() const;

 private:
  class Reports;
  const std::shared_ptr<Reports> reports_;
  const c10::DebugInfoGuard guard_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_ALLOCATION_PEAK_H_
