#ifndef HOTLORA_SRC_SCHEDULER_STEP_REPORT_H_
#define HOTLORA_SRC_SCHEDULER_STEP_REPORT_H_

// What follows from an evaluation of the network: the requests' summaries and the metrics get its duration, and the
// callers whose rows have done a step get its progress, with a preview if one is due.

#include "absl/types/span.h"

#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/image_run.h"

namespace hotlora {

// Not thread-safe: the step thread's.
class StepReport {
 public:
  // `pipeline` and `metrics` outlive this object.
  StepReport(Pipeline* pipeline, Metrics* metrics) : pipeline_(pipeline), metrics_(metrics) {}

  // `rows`, one or more, were evaluated together in `mode`, which took `seconds`. A run whose preview fails gets the
  // error as its status, and its caller no progress.
  void Report(absl::Span<const RowRef> rows, ApplyMode mode, double seconds);

 private:
  void TellProgress(ImageRun& run, RunningRow& running);

  Pipeline* const pipeline_;
  Metrics* const metrics_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_STEP_REPORT_H_
