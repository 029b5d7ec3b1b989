#ifndef HOTLORA_SRC_TENSOR_MEMORY_STATS_H_
#define HOTLORA_SRC_TENSOR_MEMORY_STATS_H_

#include <cstdint>
#include <memory>

#include <c10/core/Device.h>

#include "src/tensor/tensor_fwd.h"

namespace hotlora {

// An allocator's own figures, in bytes.
struct MemoryStats {
  int64_t allocated = 0;       // live tensors
  int64_t reserved = 0;        // what the allocator holds of the device; on the CPU the same as allocated
  int64_t inactive_split = 0;  // reserved but unusable remainders; this and what follows is 0 on the CPU
  int64_t peak_allocated = 0;  // since the start
  int64_t active = 0;          // blocks in use, or that wait for a stream
  int64_t requested = 0;       // what was asked for, before rounding
  int64_t segments = 0;        // pieces of device memory
  int64_t retries = 0;         // allocations that needed the cache given back first; counts from the start
  int64_t failures = 0;        // allocations that failed for want of memory; counts from the start
  int64_t taken = 0;           // times that the allocator took memory from the device; counts from the start
  int64_t returned = 0;        // times that it gave memory back; counts from the start

  double fragmentation() const { return reserved > 0 ? static_cast<double>(inactive_split) / reserved : 0.0; }
};

// Replaces LibTorch's CPU allocator by one that counts live bytes exactly, and reports each block to an AllocationPeak
// (allocation_peak.h) of its thread. Under a limit of addresses (RLIMIT_AS) it also makes malloc give large blocks back
// as soon as they are freed. Call once, before the first tensor is made.
void InstallCountingCpuAllocator();

// A tensor [bytes], uint8, over memory on the CPU that is not the allocator's. It counts as live, and keeps `memory`,
// as long as anybody holds it or a view of it.
at::Tensor CountedView(std::shared_ptr<char> memory, int64_t offset, int64_t bytes);

// The figures of `device`. Thread-safe; never waits for the device.
MemoryStats GetMemoryStats(c10::Device device);

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_MEMORY_STATS_H_
