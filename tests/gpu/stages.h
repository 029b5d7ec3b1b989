#ifndef HOTLORA_TESTS_GPU_STAGES_H_
#define HOTLORA_TESTS_GPU_STAGES_H_

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "tests/gpu/probe.h"

namespace hotlora {

// OK: the stage did all it can, and its checks say whether it is "ok". UNAVAILABLE: the machine lacks what it needs.
// Other errors, and what is thrown, make it "failed".
using RunStage = absl::Status(Probe& probe);

struct Stage {
  const char* name;
  int seconds;  // time limit, unless --seconds sets another
  RunStage* run;
};

// All stages in the order in which a run takes them. The one table that names them; `gpu_probe --list` prints it.
absl::Span<const Stage> Stages();

// load_stage.cc: driver, libraries and their versions, the device, settings of LibTorch, the allocator, pinned memory.
RunStage RunLoad;
// kernels_stage.cc: hotlora's own kernels against their references, in all dtypes and layouts.
RunStage RunKernels;
// golden_stage.cc: the networks and the pipeline against the reference's numbers and pictures.
RunStage RunGolden;
// ceilings_stage.cc: products of matrices, copies and launches at their fastest.
RunStage RunCeilings;
// networks_stage.cc: UNet, attention by each way to compute it, text encoders and VAE decoder at SDXL's shapes.
RunStage RunUnet, RunAttention, RunText, RunVae;
// adapters_stage.cc: merge, restore, upload and side branch; steps with a decode or an upload beside them.
RunStage RunAdapters, RunBeside;
// trace_stage.cc: what the device did in a step, by classes of kernels.
RunStage RunTrace;

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_STAGES_H_
