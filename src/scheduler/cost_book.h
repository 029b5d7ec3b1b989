#ifndef HOTLORA_SRC_SCHEDULER_COST_BOOK_H_
#define HOTLORA_SRC_SCHEDULER_COST_BOOK_H_

// What steps and swaps have cost on this machine, and what follows from it for the steps to come. No clock: callers say
// what they measured.
//
// The median of the last kKept costs counts, for each kind of step and swap. A figure that is not known changes
// nothing: what was done without figures is done on.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/types/span.h"

#include "src/base/mutex.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/cost_report.h"

namespace hotlora {

// One image's share of a step.
struct RowWork {
  uint32_t network_rows = 0;
  bool side = false;
};

// Thread-safe.
class CostBook {
 public:
  static constexpr size_t kKept = 9;
  static constexpr size_t kLeastSteps = 3;  // of a kind, until its cost is known
  static constexpr size_t kKinds = 64;      // of steps; the one that was seen longest ago beyond them is forgotten
  // A kind that was not among so many last steps is not known any more, so that it is tried again.
  static constexpr uint64_t kFreshSteps = 1024;

  // StepsBeforeMerging without figures, and its limits.
  static constexpr uint32_t kDefaultStepsBeforeMerging = 8, kMostStepsBeforeMerging = 256;

  // Turns must be faster than one call by this share, and by so many seconds, before they begin: costs that were
  // measured at different times differ by what else the machine did. They end as soon as they are not faster.
  static constexpr double kTurnsGain = 0.25, kTurnsGainSeconds = 1e-3;

  void AddStep(const StepKind& kind, double seconds);
  void AddSwap(const SwapKind& kind, double seconds);
  // A set that was at hand took effect.
  void AddApply(const SwapReport& report, ApplyMode mode);

  // For how many steps a set that was left alone beside the weights stays there before it is merged: until what the
  // steps lost reaches what the merge costs. Whatever comes then, at most twice is lost of what the better choice would
  // have cost. Least 1: a merge that costs nothing must not alternate with its undoing within a step.
  // Source   the ski-rental problem: Karlin et al. 1988, "Competitive snoopy caching"
  uint32_t StepsBeforeMerging(uint32_t width, uint32_t height, absl::Span<const RowWork> rows) const;

  // How many of `rows`, one or more, go into one call of the network, so that a step of all of them takes the least
  // time: all of them, unless calls of fewer, one after the other, are known to be faster.
  size_t RowsPerCall(uint32_t width, uint32_t height, absl::Span<const RowWork> rows);

  CostReport Report() const;

 private:
  struct Costs {
    std::deque<double> last;
    uint64_t count = 0;
    uint64_t seen = 0;  // steps_ then

    void Add(double seconds);
    double Median() const;
  };

  std::optional<double> StepSeconds(const StepKind& kind) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What a step of `rows` takes in calls of `per_call`; nullopt if one of the calls is not known.
  std::optional<double> SecondsInCalls(uint32_t width, uint32_t height, absl::Span<const RowWork> rows,
                                       size_t per_call) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  std::map<StepKind, Costs> step_costs_ ABSL_GUARDED_BY(mu_);
  std::map<SwapKind, Costs> swap_costs_ ABSL_GUARDED_BY(mu_);
  Costs merge_costs_ ABSL_GUARDED_BY(mu_);
  uint64_t steps_ ABSL_GUARDED_BY(mu_) = 0;
  bool taking_turns_ ABSL_GUARDED_BY(mu_) = false;
  mutable uint32_t steps_before_merging_ ABSL_GUARDED_BY(mu_) = kDefaultStepsBeforeMerging;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_COST_BOOK_H_
