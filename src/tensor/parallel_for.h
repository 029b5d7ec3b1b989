#ifndef HOTLORA_SRC_TENSOR_PARALLEL_FOR_H_
#define HOTLORA_SRC_TENSOR_PARALLEL_FOR_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace hotlora {

// Calls body(first, end) for ranges that make up [begin, end), on the threads of LibTorch's pool and under the caller's
// thread-local state (inference mode, AllocationPeak). There are as many ranges as threads, but none smaller than
// `grain`, the last apart; a call from within a parallel loop, or with one thread, has one range.
//
// All loops of ours are made by it: at::parallel_for is a template in LibTorch's header, and in a file that is compiled
// without OpenMP it has one range, without a word. The file behind this function is compiled with it.
//
// Errors   rethrows one of the exceptions that body throws, once all calls have ended
void ParallelFor(int64_t begin, int64_t end, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body);

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_PARALLEL_FOR_H_
