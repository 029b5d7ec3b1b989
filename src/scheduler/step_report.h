#ifndef HOTLORA_SRC_SCHEDULER_STEP_REPORT_H_
#define HOTLORA_SRC_SCHEDULER_STEP_REPORT_H_

// What follows from an evaluation of the network: the requests' summaries, costs and metrics get its duration, and the
// callers whose rows have done a step get its progress, with a preview if one is due.

#include "absl/types/span.h"

#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/cost_book.h"
#include "src/scheduler/image_run.h"

namespace hotlora {

// What a row is in the evaluation for which `ref` was made.
RowWork WorkOf(const RowRef& ref, ApplyMode mode);

// Not thread-safe: the step thread's.
class StepReport {
 public:
  // The arguments outlive this object.
  StepReport(Pipeline* pipeline, CostBook* costs, Metrics* metrics)
      : pipeline_(pipeline), costs_(costs), metrics_(metrics) {}

  // `rows`, one or more, were evaluated together in `mode`, which took `seconds`. A run whose preview fails gets the
  // error as its status, and its caller no progress.
  void Report(absl::Span<const RowRef> rows, ApplyMode mode, double seconds);

 private:
  void TellProgress(ImageRun& run, RunningRow& running);

  Pipeline* const pipeline_;
  CostBook* const costs_;
  Metrics* const metrics_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_STEP_REPORT_H_
