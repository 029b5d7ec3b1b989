#include "tests/gpu/stages.h"

namespace hotlora {

absl::Span<const Stage> Stages() {
  // Together, with the server's stage of run.sh, below 9 minutes.
  static constexpr Stage kStages[] = {
      {"load", 30, RunLoad}, {"kernels", 45, RunKernels},   {"golden", 100, RunGolden}, {"ceilings", 30, RunCeilings},
      {"unet", 60, RunUnet}, {"adapters", 50, RunAdapters}, {"vae", 30, RunVae},        {"attention", 25, RunAttention},
      {"text", 15, RunText}, {"beside", 25, RunBeside},     {"trace", 30, RunTrace},
  };
  return kStages;
}

}  // namespace hotlora
