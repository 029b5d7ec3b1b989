#ifndef HOTLORA_SRC_SCHEDULER_APPLY_MODE_CHOOSER_H_
#define HOTLORA_SRC_SCHEDULER_APPLY_MODE_CHOOSER_H_

// How do adapters take effect now: merged into the weights, or as side branches? Decides by the fingerprints of the
// adapter sets that have rows. Pure: no pipeline, no clock, no threads.
//
// A merged set costs nothing in a step, but a step of another set has to rebuild weights first. Side branches cost a
// little in each step, and rows of different sets share it. So with --apply auto the mode is
//   side     while several sets have rows, and from the start if a second set is ready to join the first: to merge the
//            first for one step would be wasted
//   merged   if one set starts alone, or has had the device to itself for as many steps without a break as the caller
//            says (CostBook::StepsBeforeMerging). If it were merged sooner, two requests that take turns would have
//            weights rebuilt between them
//
// A set that starts alone is merged whatever that costs, so that the same request on a server that does nothing else
// has the same bytes

#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "src/pipeline/pipeline.h"
#include "src/request/model_info.h"

namespace hotlora {

class ApplyModeChooser {
 public:
  explicit ApplyModeChooser(ApplyPolicy policy) : policy_(policy), mode_(ModeFor(policy, /*mixed=*/false)) {}

  ApplyMode mode() const { return mode_; }

  // Call before a row of the set `joining` starts. `running`: the sets that have rows, each once. `another_is_ready`: a
  // request with another set is ready and could share the steps of `joining`; it counts only if nothing runs. True if
  // mode() changed.
  bool BeforeRow(absl::Span<const std::string> running, absl::string_view joining, bool another_is_ready);

  // Call before each step of rows with the sets `running`, of which there is at least one. True if mode() changed.
  bool BeforeStep(absl::Span<const std::string> running, uint32_t steps_before_merging);

 private:
  bool Choose(bool mixed);
  bool SwitchTo(ApplyMode mode);

  const ApplyPolicy policy_;
  ApplyMode mode_;
  uint32_t steps_of_one_set_ = 0;                                         // in side mode, without a break
  uint32_t steps_before_merging_ = std::numeric_limits<uint32_t>::max();  // none before the first step
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_APPLY_MODE_CHOOSER_H_
