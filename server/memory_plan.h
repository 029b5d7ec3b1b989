#ifndef HOTLORA_SERVER_MEMORY_PLAN_H_
#define HOTLORA_SERVER_MEMORY_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "src/engine/engine.h"

namespace hotlora {

// A line of the memory plan: how much is set aside, and how much of it is used now.
struct PlannedMemory {
  std::string what;
  std::string where;  // the device, or "host"
  uint64_t planned_bytes = 0;
  uint64_t used_bytes = 0;
};

// Weights, then adapter tiers. `device` is the model's.
std::vector<PlannedMemory> MemoryPlan(const EngineStatistics& statistics, const std::string& device);

// The same as lines of text, for the log and --check.
std::string MemoryPlanText(const EngineStatistics& statistics, const std::string& device);

// Whether there is room for ControlNets and image prompts.
bool HasControls(const EngineStatistics& statistics);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_MEMORY_PLAN_H_
