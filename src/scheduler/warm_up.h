#ifndef HOTLORA_SRC_SCHEDULER_WARM_UP_H_
#define HOTLORA_SRC_SCHEDULER_WARM_UP_H_

#include <cstdint>

#include "absl/status/status.h"

#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/cost_book.h"
#include "src/scheduler/decode_line.h"
#include "src/scheduler/memory_admission.h"

namespace hotlora {

constexpr uint32_t kMostWarmRows = 16;

// A short generation without adapters, at the model's native size, with and without guidance: kernels are chosen and
// workspaces made, the step baselines of one row are measured, and the memory that texts, steps and decodes take. Each
// call is on the thread that serves it, because LibTorch keeps what it chose by thread: steps on the calling one, the
// decode on the decode line's. `costs` gets what the steps took. The step thread's first work.
//
// A CPU begins with steps without guidance at half the native width and height. The warm-up stays at that size if such
// a step takes more than half a second. It also stays there if too little memory is available for the native size; the
// need is estimated from the smaller steps. Otherwise it goes on at the native size.
//
// On a GPU, which chooses for each number of rows, every number of rows of the network that a batch of `max_batch`
// images can have runs twice, up to kMostWarmRows, the second time for its cost.
//
// ResourceExhausted (OUT_OF_MEMORY) if there is not even the head-room for one image.
absl::Status WarmUp(Pipeline& pipeline, MemoryAdmission& memory, Metrics& metrics, DecodeLine& decode_line,
                    CostBook& costs, uint32_t max_batch);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_WARM_UP_H_
