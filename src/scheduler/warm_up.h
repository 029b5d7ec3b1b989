#ifndef HOTLORA_SRC_SCHEDULER_WARM_UP_H_
#define HOTLORA_SRC_SCHEDULER_WARM_UP_H_

#include "absl/status/status.h"

#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"

namespace hotlora {

// A short generation without adapters, with and without guidance, at the model's native size: kernels are chosen and
// workspaces made, and the step baselines of one row are measured. The step thread's first work.
absl::Status WarmUp(Pipeline& pipeline, Metrics& metrics);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_WARM_UP_H_
