#include "tests/gpu/stages.h"

namespace hotlora {

absl::Span<const Stage> Stages() {
  static constexpr Stage kStages[] = {
      {"load", 30, RunLoad},
  };
  return kStages;
}

}  // namespace hotlora
