#include "server/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace hotlora {
namespace {

double MiB(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

std::vector<PlannedMemory> MemoryPlan(const EngineStatistics& statistics, const std::string& device) {
  std::vector<PlannedMemory> plan;
  for (const MemoryArea& area : statistics.memory) {
    plan.push_back({area.what, area.where, area.bytes, area.bytes});
  }
  const auto add_tiers = [&](const char* what, const AdapterStoreStatistics& store) {
    for (const TierStatistics& tier : store.tiers) {
      const bool on_device = tier.tier == AdapterTier::kDevice;
      plan.push_back({absl::StrCat(what, on_device ? " in the device tier" : " in the host tier"),
                      on_device ? device : "host", tier.capacity_bytes, tier.bytes});
    }
  };
  add_tiers("adapters", statistics.adapters);
  if (HasControls(statistics)) {
    add_tiers("ControlNets and image prompts", statistics.controls);
  }
  return plan;
}

bool HasControls(const EngineStatistics& statistics) {
  return std::any_of(statistics.controls.tiers.begin(), statistics.controls.tiers.end(),
                     [](const TierStatistics& tier) { return tier.capacity_bytes > 0; });
}

std::string MemoryPlanText(const EngineStatistics& statistics, const std::string& device) {
  std::string text;
  for (const PlannedMemory& line : MemoryPlan(statistics, device)) {
    absl::StrAppendFormat(&text, "  %-48s %10.1f MiB  %s\n", line.what, MiB(line.planned_bytes), line.where);
  }
  absl::StrAppendFormat(&text, "  %-48s %10.1f MiB  %s\n", "allocated before the first request",
                        MiB(static_cast<uint64_t>(statistics.device_memory.allocated)), device);
  return text;
}

}  // namespace hotlora
