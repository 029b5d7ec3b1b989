#ifndef HOTLORA_SRC_REQUEST_SAMPLER_NAMES_H_
#define HOTLORA_SRC_REQUEST_SAMPLER_NAMES_H_

// The names that AUTOMATIC1111's web UI gives to samplers and schedules, and with it the tools that read a picture's
// metadata.

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "src/request/image_request.h"

namespace hotlora {

// "DPM++ 2M", "Karras". Trailing is not one of its schedules, and "Automatic" means the checkpoint's own here.
const char* SamplerName(Sampler sampler);
const char* ScheduleName(NoiseScheduleKind schedule);

// Other names of a sampler: "k_dpmpp_2m".
std::vector<std::string> SamplerAliases(Sampler sampler);
// A schedule's other name, by which programs call it: "karras".
std::string ScheduleAlias(NoiseScheduleKind schedule);

// By either name, in any case.
std::optional<Sampler> FindSampler(absl::string_view name);
std::optional<NoiseScheduleKind> FindSchedule(absl::string_view name);

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_SAMPLER_NAMES_H_
