#ifndef HOTLORA_SRC_ENGINE_STATISTICS_H_
#define HOTLORA_SRC_ENGINE_STATISTICS_H_

// Exact figures of a running engine, for GetStatistics.

#include <cstdint>
#include <vector>

#include "src/adapters/adapter_statistics.h"
#include "src/base/memory_stats.h"
#include "src/request/model_info.h"
#include "src/scheduler/cost_report.h"

namespace hotlora {

struct EngineStatistics {
  std::vector<MemoryArea> memory;   // fixed from the start
  MemoryStats device_memory;        // all of the device's, as the allocator says
  AdapterStoreStatistics adapters;  // tiers too
  AdapterStoreStatistics controls;  // likewise; a tier without bytes is there too
  BaseReport base;                  // since the start
  uint32_t queue_depth = 0, queue_capacity = 0;
  double uptime_seconds = 0.0;
  CostReport costs;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ENGINE_STATISTICS_H_
