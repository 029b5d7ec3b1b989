#ifndef HOTLORA_SRC_TENSOR_DEVICE_STREAM_H_
#define HOTLORA_SRC_TENSOR_DEVICE_STREAM_H_

#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <c10/core/Device.h>
#include <c10/core/Stream.h>

namespace hotlora {

// A stream of a device: work that is queued on it runs in the order in which it was queued, and beside the work of
// other streams. The CPU has none, and does all work at once.
//
// Threads  thread-safe; two threads may use one stream
class DeviceStream {
 public:
  // Between kernels the device prefers streams of high priority.
  enum class Priority { kLow, kHigh };

  // Takes the stream from LibTorch's pool. Throws c10::Error.
  DeviceStream(c10::Device device, Priority priority);

  // Runs `body` as GuardTorch does. Meanwhile the device and this stream are the calling thread's current ones. Returns
  // when the work that `body` queued is done, after an error too: nothing on the device reads or writes memory of the
  // body's afterwards, so the caller may free it or hand it to another thread. A wait that fails is the error that
  // counts.
  absl::Status Run(absl::string_view what, absl::FunctionRef<absl::Status()> body) const;

 private:
  const std::optional<c10::Stream> stream_;  // nullopt on the CPU
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_DEVICE_STREAM_H_
