#ifndef HOTLORA_SRC_SCHEDULER_COST_REPORT_H_
#define HOTLORA_SRC_SCHEDULER_COST_REPORT_H_

// The costs that CostBook knows, for GetStatistics.

#include <cstdint>
#include <tuple>
#include <vector>

#include "src/request/image_request.h"

namespace hotlora {

// Steps of one kind take as long as each other.
struct StepKind {
  uint32_t width = 0, height = 0;
  uint32_t network_rows = 0;  // an image under guidance has two
  bool side = false;          // adapters are computed beside the weights for some of the rows
};
inline bool operator<(const StepKind& a, const StepKind& b) {
  return std::tie(a.width, a.height, a.network_rows, a.side) < std::tie(b.width, b.height, b.network_rows, b.side);
}

// A swap, by where the coldest of its adapters was found and by how the set takes effect.
struct SwapKind {
  AdapterTier found = AdapterTier::kHost;
  bool merged = true;  // into the weights; else beside them
};
inline bool operator<(const SwapKind& a, const SwapKind& b) {
  return std::tie(a.found, a.merged) < std::tie(b.found, b.merged);
}

// What is known of one kind.
template <typename Kind>
struct KnownCost {
  Kind kind;
  double seconds = 0.0;  // the median of the last ones
  uint64_t count = 0;    // since the start
};

struct CostReport {
  std::vector<KnownCost<StepKind>> steps;
  std::vector<KnownCost<SwapKind>> swaps;
  uint32_t steps_before_merging = 0;
  bool taking_turns = false;  // in the last step
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_COST_REPORT_H_
