#ifndef HOTLORA_SRC_SCHEDULER_ADAPTER_SWAPS_H_
#define HOTLORA_SRC_SCHEDULER_ADAPTER_SWAPS_H_

// Adapter sets take effect: when a request starts, and where its sets change while its images are made. What that took
// goes into the request's summary, the costs and the metrics.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/cost_book.h"
#include "src/scheduler/image_run.h"

namespace hotlora {

// Not thread-safe: the step thread's.
class AdapterSwaps {
 public:
  // All outlive this object.
  AdapterSwaps(Pipeline* pipeline, CostBook* costs, Metrics* metrics)
      : pipeline_(pipeline), costs_(costs), metrics_(metrics) {}

  // The first set of a request takes effect. It is a swap if others were in effect. In side mode every set that has
  // rows is in effect: `running` are their fingerprints. Errors are Pipeline::Apply's.
  absl::Status AtStart(ImageTask& task, ApplyMode mode, absl::Span<const std::string> running);

  // Before a step of the rows of `runs`: the sets to which they come now take effect. It is one swap for each set of a
  // request that none of its rows has had in the last step. An error is the step's too.
  absl::Status BeforeStep(absl::Span<const std::shared_ptr<ImageRun>> runs, ApplyMode mode);

  // A step is about to run. `sets`: fingerprints of its rows' adapters; the last is in effect then, in side mode all.
  void NoteStep(std::vector<std::string> sets);

 private:
  bool IsInEffect(const std::string& fingerprint, ApplyMode mode) const;
  bool ComesToItsSet(const RunningRow& row, ApplyMode mode) const;
  bool BringsNewSet(const ImageRun& run, const RunningRow& row, ApplyMode mode) const;
  absl::Status Change(ImageTask& task, const AdapterSchedule::Part& adapters, ApplyMode mode);
  absl::StatusOr<SwapReport> Apply(const AdapterSchedule::Part& adapters, ApplyMode mode);

  Pipeline* const pipeline_;
  CostBook* const costs_;
  Metrics* const metrics_;

  // Fingerprint of the set in effect. nullopt: not known, since an Apply has failed half-way.
  std::optional<std::string> in_effect_ = "";
  std::vector<std::string> last_sets_;  // fingerprints of the last step's rows
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_ADAPTER_SWAPS_H_
