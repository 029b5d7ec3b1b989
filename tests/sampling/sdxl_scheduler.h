#ifndef HOTLORA_TESTS_SAMPLING_SDXL_SCHEDULER_H_
#define HOTLORA_TESTS_SAMPLING_SDXL_SCHEDULER_H_

#include "src/sampling/scheduler_config.h"

namespace hotlora {

// What stock SDXL's scheduler_config.json says.
inline SchedulerConfig SdxlScheduler() {
  SchedulerConfig config;
  config.beta_start = 0.00085;
  config.beta_end = 0.012;
  config.beta_schedule = BetaSchedule::kScaledLinear;
  config.timestep_spacing = TimestepSpacing::kLeading;
  config.steps_offset = 1;
  return config;
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_SAMPLING_SDXL_SCHEDULER_H_
