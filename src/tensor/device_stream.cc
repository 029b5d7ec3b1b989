#include "src/tensor/device_stream.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "src/tensor/torch_guard.h"

namespace hotlora {
namespace {

std::optional<c10::Stream> TakeStream(c10::Device device, DeviceStream::Priority priority) {
  if (device.is_cpu()) {
    return std::nullopt;
  }
  const c10::DeviceGuard guard(device);  // the pool of streams makes a context on the current device
  return c10::impl::VirtualGuardImpl(device.type())
      .getStreamFromGlobalPool(device, priority == DeviceStream::Priority::kHigh);
}

}  // namespace

DeviceStream::DeviceStream(c10::Device device, Priority priority) : stream_(TakeStream(device, priority)) {}

absl::Status DeviceStream::Run(absl::string_view what, absl::FunctionRef<absl::Status()> body) const {
  if (!stream_.has_value()) {
    return GuardTorch(what, body);
  }
  absl::Status status;
  const absl::Status waited = GuardTorch(what, [&] {
    const c10::StreamGuard current(*stream_);
    status = GuardTorch(what, body);
    stream_->synchronize();
    return absl::OkStatus();
  });
  return waited.ok() ? status : waited;
}

}  // namespace hotlora
