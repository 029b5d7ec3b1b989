#include "src/scheduler/batch_policy.h"

namespace hotlora {

std::optional<size_t> ChooseRow(absl::Span<const RowCandidate> candidates, absl::Duration longest_overtaking) {
  // The candidates are in the order of the queue, so priorities only fall, and one pass is enough. Before each turn
  // `chosen` is the best of the candidates so far, and `passed` is the priority of one that does not fit: a later
  // candidate that is chosen passes it. A candidate of lower priority than either ends the search, as all behind it
  // are.
  std::optional<size_t> chosen;
  std::optional<int32_t> passed;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const RowCandidate& candidate = candidates[i];
    if ((chosen.has_value() && candidate.priority < candidates[*chosen].priority) ||
        (passed.has_value() && candidate.priority < *passed)) {
      break;
    }
    if (!candidate.fits) {
      if (candidate.waited >= longest_overtaking) {
        break;  // it is not passed any more; an earlier candidate may still be chosen
      }
      passed = candidate.priority;
    } else if (!chosen.has_value() || candidate.rows < candidates[*chosen].rows) {
      chosen = i;
    }
  }
  return chosen;
}

}  // namespace hotlora
