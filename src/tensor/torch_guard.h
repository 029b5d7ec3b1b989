#ifndef HOTLORA_SRC_TENSOR_TORCH_GUARD_H_
#define HOTLORA_SRC_TENSOR_TORCH_GUARD_H_

// The one guard between LibTorch, which throws, and the rest, which returns absl::Status. Used in three places:
// SdxlPipeline's public functions, the adapter tiers' tensor work, and weight loading.

#include <functional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace hotlora {

// A network put out values that are not finite. The text says of what, and what to do.
class NonfiniteError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Runs `body` in InferenceMode and turns what it throws into a status, most derived first:
//   c10::OutOfMemoryError, std::bad_alloc  RESOURCE_EXHAUSTED, reason OUT_OF_MEMORY
//   c10::AcceleratorError                  by its code, which is CUDA's: as above for want of memory; INTERNAL, reason
//                                          INTERNAL, for a call that CUDA refused and that leaves the device usable;
//                                          all others INTERNAL, reason DEVICE_FAILED: the device is lost; restart the
//                                          process
//   c10::NotImplementedError               UNIMPLEMENTED
//   NonfiniteError                         INTERNAL, reason NONFINITE_OUTPUT; its text is in the message
//   other exceptions                       INTERNAL, reason INTERNAL
// Afterwards the calling thread's team of threads is released, unless it has a KeptTeam (src/base/thread_team.h).
// `what` names the work in the message ("denoise step"); LibTorch's own text goes to the log only.
absl::Status GuardTorch(absl::string_view what, absl::FunctionRef<absl::Status()> body);

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_TORCH_GUARD_H_
