#ifndef HOTLORA_TESTS_FAKES_SIM_DEVICE_HOST_MEMORY_H_
#define HOTLORA_TESTS_FAKES_SIM_DEVICE_HOST_MEMORY_H_

#include <c10/core/Allocator.h>

#include "tests/fakes/sim_device/stream.h"

namespace hotlora {

// Pinned memory of the host, which a copy can use after the call has returned. As CUDA's caching host allocator does,
// it keeps a freed block until the copies that were queued with it are done; freed memory is then filled with 0xFF. It
// knows whole blocks only: code that uses a part of a block again waits by itself.
// Threads  thread-safe
c10::Allocator* PinnedAllocator();

bool IsPinned(const void* data);

// The block that holds `data` is in use until `stream` has done what is queued now.
void RecordPinned(const void* data, SimStream& stream);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_SIM_DEVICE_HOST_MEMORY_H_
