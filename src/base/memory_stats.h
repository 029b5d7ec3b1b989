#ifndef HOTLORA_SRC_BASE_MEMORY_STATS_H_
#define HOTLORA_SRC_BASE_MEMORY_STATS_H_

#include <cstdint>

namespace hotlora {

// An allocator's own figures. Sizes are in bytes, of now; counts of events are since the start.
struct MemoryStats {
  int64_t allocated = 0;       // live tensors
  int64_t reserved = 0;        // what the allocator holds of the device; on the CPU the same as allocated
  int64_t inactive_split = 0;  // reserved but unusable remainders; this and what follows is 0 on the CPU
  int64_t peak_allocated = 0;  // since the start
  int64_t active = 0;          // blocks in use, or that wait for a stream
  int64_t requested = 0;       // what was asked for, before rounding
  int64_t segments = 0;        // pieces of device memory now
  int64_t retries = 0;         // number of allocations that needed the cache given back first
  int64_t failures = 0;        // number of allocations that failed for want of memory
  int64_t taken = 0;           // number of times that the allocator took memory from the device
  int64_t returned = 0;        // number of times that it gave memory back

  double fragmentation() const { return reserved > 0 ? static_cast<double>(inactive_split) / reserved : 0.0; }
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_MEMORY_STATS_H_
