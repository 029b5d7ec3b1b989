#ifndef HOTLORA_SRC_TENSOR_CUDA_LIBRARY_H_
#define HOTLORA_SRC_TENSOR_CUDA_LIBRARY_H_

#include "absl/status/status.h"

namespace hotlora {

// Loads libhotlora_cuda.so (src/cuda), with it LibTorch's CUDA half, and sets the kernels of CUDA devices. Needed
// before anything asks LibTorch for CUDA; ResolvePlace calls it for every device but "cpu". The first call does the
// work, later ones give its result. Thread-safe.
//
// Errors   NOT_FOUND: this build has no such library. FAILED_PRECONDITION: it does not load, is of another build, or
//          finds no device; the log has the message too. Both say what is missing and what to do.
absl::Status LoadCuda();

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_CUDA_LIBRARY_H_
