#ifndef HOTLORA_SRC_TENSOR_ALLOCATION_PEAK_H_
#define HOTLORA_SRC_TENSOR_ALLOCATION_PEAK_H_

#include <cstdint>
#include <memory>

#include <c10/util/ThreadLocalDebugInfo.h>

namespace hotlora {

// The most bytes of tensors that one thread, with the threads of its parallel loops, has held, beyond what it held when
// this object was made.
//
// The allocators (the counting one of memory_stats.h, LibTorch's caching one on a GPU) report each block to the thread
// that asks for it or frees it, so work on other threads at the same time does not show. A block that the thread frees
// counts as given back, no matter who asked for it. Threads of a parallel loop report to this object if the loop hands
// them the thread-local state (ParallelFor does); of others, LibTorch's kernels allocate no tensors there. Not
// counted: what libraries take from the system by themselves (code that oneDNN makes, workspaces of MKL), and stacks of
// threads.
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
