#include "tests/gpu/stages.h"

namespace hotlora {

absl::Span<const Stage> Stages() {
  static constexpr Stage kStages[] = {
      {"load", 30, RunLoad},
      {"kernels", 60, RunKernels},
      {"golden", 120, RunGolden},
      {"ceilings", 60, RunCeilings},
  };
  return kStages;
}

}  // namespace hotlora
