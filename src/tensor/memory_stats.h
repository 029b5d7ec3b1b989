#ifndef HOTLORA_SRC_TENSOR_MEMORY_STATS_H_
#define HOTLORA_SRC_TENSOR_MEMORY_STATS_H_

#include <cstdint>

#include <c10/core/Device.h>

namespace hotlora {

// An allocator's own figures, in bytes.
struct MemoryStats {
  int64_t allocated = 0;       // live tensors
  int64_t reserved = 0;        // what the allocator holds of the device; on the CPU the same as allocated
  int64_t inactive_split = 0;  // reserved but unusable remainders; 0 on the CPU

  double fragmentation() const { return reserved > 0 ? static_cast<double>(inactive_split) / reserved : 0.0; }
};

// Replaces LibTorch's CPU allocator by one that counts live bytes exactly. Call once, before the first tensor is made.
void InstallCountingCpuAllocator();

// The figures of `device`. Thread-safe; never waits for the device.
MemoryStats GetMemoryStats(c10::Device device);

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_MEMORY_STATS_H_
