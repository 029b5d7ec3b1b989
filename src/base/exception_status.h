#ifndef HOTLORA_SRC_BASE_EXCEPTION_STATUS_H_
#define HOTLORA_SRC_BASE_EXCEPTION_STATUS_H_

#include "absl/status/status.h"

namespace hotlora {

// The status of the exception being handled: ResourceExhausted (OUT_OF_MEMORY) of std::bad_alloc, else Internal
// (INTERNAL), whose text goes to the log alone.
absl::Status CurrentExceptionStatus();

// Runs `body`, which returns an absl::Status or an absl::StatusOr, and turns what it throws into a status: the work of
// one request must not end the thread that does it. For LibTorch's exceptions there is src/tensor/torch_guard.h.
template <typename Body>
auto CatchExceptions(Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (...) {
    return CurrentExceptionStatus();
  }
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_EXCEPTION_STATUS_H_
