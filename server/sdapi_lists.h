#ifndef HOTLORA_SERVER_SDAPI_LISTS_H_
#define HOTLORA_SERVER_SDAPI_LISTS_H_

// The JSON that AUTOMATIC1111's API lists things in, and tells progress in.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"

#include "src/adapters/adapter_info.h"
#include "src/request/model_info.h"

namespace hotlora {

// The JSON of /loras, /samplers, /schedulers and /sd-models.
std::string LorasJson(const std::vector<AdapterInfo>& adapters);
std::string SamplersJson();
std::string SchedulersJson();
std::string SdModelsJson(const ModelInfo& model);

// The JSON of /controlnet/model_list and /controlnet/module_list. A name that both kinds have stands there once.
std::string ControlModelsJson(const std::vector<AdapterInfo>& controls, const std::vector<AdapterInfo>& image_prompts);
std::string ControlModulesJson();

// How far one request is.
struct SdapiProgress {
  std::string job;      // "txt2img"
  absl::Time job_time;  // of its begin, for people
  absl::Time begin;     // by SteadyNow
  uint32_t images = 1, finished_images = 0;
  uint32_t step = 0, steps = 1;                // of the image that was last heard of
  uint64_t steps_done = 0;                     // of all images
  std::string waits_for;                       // such as "place 2 in the queue"; empty once it runs
  std::shared_ptr<const std::string> preview;  // JPEG; nullptr: none yet
};

// The JSON of /progress at `now`, by SteadyNow, for a caller's requests, the oldest first.
std::string ProgressJson(absl::Span<const SdapiProgress> requests, bool with_image, absl::Time now);

// A time in the form of the API: "20261127130000", in UTC.
std::string SdapiTime(absl::Time time);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SDAPI_LISTS_H_
