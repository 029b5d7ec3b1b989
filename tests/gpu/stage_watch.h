#ifndef HOTLORA_TESTS_GPU_STAGE_WATCH_H_
#define HOTLORA_TESTS_GPU_STAGE_WATCH_H_

#include "tests/gpu/probe.h"

namespace hotlora {

// Ends the process, with the stage's line as "failed" and what was found until then, at the probe's time limit, at
// SIGTERM or SIGINT, and when the program crashes. The exit status is 1 at the time limit, else the signal's.
//
// Call it once, before other threads exist: it blocks signals in this thread and in all that start later. `probe` must
// live as long as the process.
void WatchStage(Probe& probe);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_STAGE_WATCH_H_
