#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_STATISTICS_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_STATISTICS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "src/adapters/adapter_info.h"

namespace hotlora {

// A resident tier. Counts are since the start.
struct TierStatistics {
  AdapterTier tier = AdapterTier::kHost;
  uint64_t capacity_bytes = 0;
  uint64_t bytes = 0;  // versions that only requests still hold included
  uint64_t pinned_bytes = 0;
  uint64_t entries = 0;
  uint64_t hits = 0, misses = 0, evictions = 0;
};

// What happened to one adapter since the start, or since it was last deleted.
struct AdapterCounts {
  uint64_t requests = 0;   // that asked for it and got it
  uint64_t host_hits = 0;  // found in the host tier, or warmer
  uint64_t reads = 0;      // of its file, that went well
  uint64_t failed_reads = 0;
  double read_seconds = 0.0, parse_seconds = 0.0;  // of all reads
  absl::Time last_used = absl::InfinitePast();     // infinite past: never
};

struct AdapterStatistics {
  AdapterInfo info;
  AdapterCounts counts;
};

struct AdapterStoreStatistics {
  std::vector<TierStatistics> tiers;        // the warmest first
  std::vector<AdapterStatistics> adapters;  // that were asked for and are there, by name
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_STATISTICS_H_
