#include "server/sdapi_lists.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include <nlohmann/json.hpp>

#include "server/sdapi_controls.h"
#include "server/sdapi_options.h"
#include "server/status_mapping.h"
#include "src/base/enum_size.h"
#include "src/request/sampler_names.h"

namespace hotlora {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

std::string LorasJson(const std::vector<AdapterInfo>& adapters) {
  Json loras = Json::array();
  for (const AdapterInfo& adapter : adapters) {
    Json metadata = Json::object();
    const auto add = [&metadata](const char* name, const std::string& text) {
      if (!text.empty()) {
        metadata[name] = CleanText(text);
      }
    };
    add("modelspec.architecture", adapter.metadata.architecture);
    add("modelspec.title", adapter.metadata.title);
    add("modelspec.trigger_phrase", adapter.metadata.trigger_phrase);
    add("ss_base_model_version", adapter.metadata.base_model);
    const std::string name = CleanText(adapter.name);
    loras.push_back({{"name", name}, {"alias", name}, {"path", name}, {"metadata", std::move(metadata)}});
  }
  return loras.dump();
}

std::string SamplersJson() {
  Json samplers = Json::array();
  for (const Sampler sampler : AllOf<Sampler>()) {
    samplers.push_back(
        {{"name", SamplerName(sampler)}, {"aliases", SamplerAliases(sampler)}, {"options", Json::object()}});
  }
  return samplers.dump();
}

std::string SchedulersJson() {
  Json schedulers = Json::array();
  for (const NoiseScheduleKind schedule : AllOf<NoiseScheduleKind>()) {
    schedulers.push_back({{"name", ScheduleAlias(schedule)},
                          {"label", ScheduleName(schedule)},
                          {"aliases", nullptr},
                          {"default_rho", schedule == NoiseScheduleKind::kKarras ? 7.0 : -1.0},
                          {"need_inner_model", false}});
  }
  return schedulers.dump();
}

std::string SdModelsJson(const ModelInfo& model) {
  const std::string name = CleanText(model.name);
  return Json::array({{{"title", ModelTitle(model)},
                       {"model_name", name},
                       {"hash", model.sha256.substr(0, kModelHashDigits)},
                       {"sha256", model.sha256},
                       {"filename", name},
                       {"config", nullptr}}})
      .dump();
}

std::string ControlModelsJson(const std::vector<AdapterInfo>& controls, const std::vector<AdapterInfo>& image_prompts) {
  std::set<std::string> names;
  for (const auto* const list : {&controls, &image_prompts}) {
    for (const AdapterInfo& file : *list) {
      names.insert(CleanText(file.name));
    }
  }
  return Json{{"model_list", names}}.dump();
}

std::string ControlModulesJson() {
  Json modules = {"none"};
  for (const absl::string_view module : kImagePromptModules) {
    modules.push_back(std::string(module));
  }
  return Json{{"module_list", std::move(modules)}}.dump();
}

std::string ProgressJson(absl::Span<const SdapiProgress> requests, bool with_image, absl::Time now) {
  uint64_t images = 0, finished_images = 0, steps = 0, steps_done = 0;
  for (const SdapiProgress& request : requests) {
    images += request.images;
    finished_images += request.finished_images;
    steps += uint64_t{request.images} * request.steps;
    steps_done += request.steps_done;
  }
  const double progress = steps == 0 ? 0.0 : std::min(1.0, static_cast<double>(steps_done) / steps);
  const SdapiProgress idle;
  const SdapiProgress& oldest = requests.empty() ? idle : requests.front();
  const double seconds = requests.empty() ? 0.0 : std::max(0.0, absl::ToDoubleSeconds(now - oldest.begin));
  Json image = nullptr;
  if (with_image && oldest.preview != nullptr) {
    image = absl::Base64Escape(*oldest.preview);
  }
  return Json{
      {"progress", progress},
      {"eta_relative", progress > 0 ? seconds / progress - seconds : 0.0},
      {"state",
       {{"skipped", false},
        {"interrupted", false},
        {"stopping_generation", false},
        {"job", oldest.job},
        {"job_count", images},
        {"job_timestamp", requests.empty() ? "0" : SdapiTime(oldest.job_time)},
        {"job_no", finished_images},
        {"sampling_step", oldest.step},
        {"sampling_steps", requests.empty() ? 0 : oldest.steps}}},
      {"current_image", std::move(image)},
      {"textinfo", oldest.waits_for.empty() ? Json(nullptr) : Json(oldest.waits_for)},
  }
      .dump();
}

std::string SdapiTime(absl::Time time) { return absl::FormatTime("%Y%m%d%H%M%S", time, absl::UTCTimeZone()); }

}  // namespace hotlora
