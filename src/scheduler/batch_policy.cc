#include "src/scheduler/batch_policy.h"

namespace hotlora {

std::optional<size_t> ChooseRow(absl::Span<const RowCandidate> candidates, absl::Duration longest_overtaking) {
  std::optional<size_t> chosen;
  std::optional<int32_t> passed;  // priority of who is passed
  for (size_t i = 0; i < candidates.size(); ++i) {
    const RowCandidate& candidate = candidates[i];
    if ((chosen.has_value() && candidate.priority < candidates[*chosen].priority) ||
        (passed.has_value() && candidate.priority < *passed)) {
      break;
    }
    if (!candidate.fits) {
      if (candidate.waited >= longest_overtaking) {
        break;
      }
      passed = candidate.priority;
    } else if (!chosen.has_value() || candidate.rows < candidates[*chosen].rows) {
      chosen = i;
    }
  }
  return chosen;
}

}  // namespace hotlora
