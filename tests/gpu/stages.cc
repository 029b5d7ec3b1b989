#include "tests/gpu/stages.h"

namespace hotlora {

absl::Span<const Stage> Stages() {
  // Together, with the server's stage of run.sh, below 9 minutes.
  static constexpr Stage kStages[] = {
      {"load", 60, RunLoad}, {"kernels", 45, RunKernels},   {"golden", 140, RunGolden}, {"ceilings", 30, RunCeilings},
      {"unet", 60, RunUnet}, {"adapters", 50, RunAdapters}, {"vae", 30, RunVae},        {"attention", 40, RunAttention},
      {"text", 15, RunText}, {"beside", 40, RunBeside},     {"trace", 30, RunTrace},
  };
  return kStages;
}

}  // namespace hotlora
