#ifndef HOTLORA_SRC_SCHEDULER_WARM_UP_H_
#define HOTLORA_SRC_SCHEDULER_WARM_UP_H_

#include "absl/status/status.h"

#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/memory_admission.h"

namespace hotlora {

// A short generation without adapters, with and without guidance, at the model's native size: kernels are chosen and
// workspaces made, the step baselines of one row are measured, and the memory that texts, steps and decodes take. The
// step thread's first work. ResourceExhausted (OUT_OF_MEMORY) if there is not even the head-room.
absl::Status WarmUp(Pipeline& pipeline, MemoryAdmission& memory, Metrics& metrics);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_WARM_UP_H_
