#ifndef HOTLORA_TESTS_GPU_STEP_WORKER_H_
#define HOTLORA_TESTS_GPU_STEP_WORKER_H_

#include <iosfwd>

#include "absl/status/status.h"

#include "src/tensor/device.h"

namespace hotlora {

// Times UNet calls by commands, so that another program (compare.py) can time its own in turn. The UNet is stock
// SDXL's, or that of tests/golden/pipeline if `tiny`, with random weights that are made on the device. First writes its
// config.json as one line. Then each line of `commands` is answered by one:
//
//   shape ROWS SIZE   random inputs of so many rows, for latents of SIZE x SIZE; two calls to warm up; answers "ready"
//   step COUNT        so many calls; answers the seconds until the device had done them
//
// Ends with `commands`. INVALID_ARGUMENT: a line is none of these. Throws c10::Error as the UNet does.
absl::Status RunStepWorker(const ComputePlace& place, bool tiny, std::istream& commands, std::ostream& answers);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_STEP_WORKER_H_
