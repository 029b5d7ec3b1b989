#include "src/tensor/parallel_for.h"

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>

#if defined(__GNUC__) && !defined(__clang__) && !defined(_OPENMP)
#error "compile this file with -fopenmp: without it, all loops run on one thread"
#endif

namespace hotlora {

void ParallelFor(int64_t begin, int64_t end, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body) {
  const at::ThreadLocalState state;
  at::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) {
    const at::ThreadLocalStateGuard guard(state);
    body(first, last);
  });
}

}  // namespace hotlora
