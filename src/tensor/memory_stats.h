#ifndef HOTLORA_SRC_TENSOR_MEMORY_STATS_H_
#define HOTLORA_SRC_TENSOR_MEMORY_STATS_H_

#include <cstdint>
#include <memory>

#include <c10/core/Device.h>

#include "src/base/memory_stats.h"
#include "src/tensor/tensor_fwd.h"

namespace hotlora {

// Replaces LibTorch's CPU allocator by one that counts live bytes exactly, and reports each block to an AllocationPeak
// (allocation_peak.h) of its thread. Under a limit of addresses (RLIMIT_AS) it also makes malloc give large blocks back
// as soon as they are freed. Call once, before the first tensor is made.
void InstallCountingCpuAllocator();

// A tensor [bytes], uint8, over memory on the CPU that is not the allocator's. It counts as live, and keeps `memory`,
// as long as the tensor or a view of it exists.
at::Tensor CountedView(std::shared_ptr<char> memory, int64_t offset, int64_t bytes);

// The figures of `device`. Thread-safe; never waits for the device.
MemoryStats GetMemoryStats(c10::Device device);

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_MEMORY_STATS_H_
