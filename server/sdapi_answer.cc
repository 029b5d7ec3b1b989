#include "server/sdapi_answer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

#include "server/sdapi_lists.h"
#include "server/sdapi_options.h"
#include "server/status_mapping.h"
#include "src/request/sampler_names.h"

namespace hotlora {
namespace {

using google::protobuf::Struct;
using Json = nlohmann::ordered_json;
using sdapi::v1::GenerateRequest;

std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

Struct ToParameters(const GenerateRequest& request) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  Struct parameters;
  if (!google::protobuf::util::MessageToJsonString(request, &json, options).ok() ||
      !google::protobuf::util::JsonStringToMessage(json, &parameters).ok()) {
    parameters.Clear();  // gRPC's callers may have sent NaN where it is ignored, which JSON does not have
  }
  // JSON of protobuf has 64-bit numbers as text.
  (*parameters.mutable_fields())["seed"].set_number_value(static_cast<double>(request.seed()));
  if (request.has_subseed()) {
    (*parameters.mutable_fields())["subseed"].set_number_value(static_cast<double>(request.subseed()));
  }
  return parameters;
}

std::string ToInfo(const GenerateRequest& request, SdapiTask task, const std::vector<SdapiImage>& images,
                   const ImageSummary& summary, const ModelInfo& model, absl::Time begin) {
  Json seeds = Json::array(), infotexts = Json::array();
  for (const SdapiImage& image : images) {
    seeds.push_back(image.seed);
    infotexts.push_back(image.parameters);
  }
  Json extra = Json::object();
  if (summary.schedule != NoiseScheduleKind::kDefault) {
    extra["Schedule type"] = ScheduleName(summary.schedule);
  }
  if (request.enable_hr()) {
    extra["Hires upscale"] = images.front().width / static_cast<double>(request.width());
    if (request.hr_second_pass_steps() > 0) {
      extra["Hires steps"] = request.hr_second_pass_steps();
    }
    extra["Hires upscaler"] = "Lanczos";
  }
  const bool has_strength = task == SdapiTask::kImg2Img || request.enable_hr();
  const auto clip_skip = request.override_settings().fields().find("CLIP_stop_at_last_layers");
  const bool skips = clip_skip != request.override_settings().fields().end() &&
                     clip_skip->second.kind_case() == google::protobuf::Value::kNumberValue;
  return Dump(Json{
      {"prompt", request.prompt()},
      {"all_prompts", std::vector<std::string>(images.size(), request.prompt())},
      {"negative_prompt", request.negative_prompt()},
      {"all_negative_prompts", std::vector<std::string>(images.size(), request.negative_prompt())},
      {"seed", images.front().seed},
      {"all_seeds", std::move(seeds)},
      {"subseed", request.has_subseed() ? request.subseed() : -1},
      {"all_subseeds", std::vector<int64_t>(images.size(), request.has_subseed() ? request.subseed() : -1)},
      {"subseed_strength", 0},
      {"width", request.width()},
      {"height", request.height()},
      {"sampler_name", SamplerName(summary.sampler)},
      {"cfg_scale", request.cfg_scale()},
      {"steps", request.steps()},
      {"batch_size", request.batch_size()},
      {"restore_faces", false},
      {"face_restoration_model", nullptr},
      {"sd_model_name", CleanText(model.name)},
      {"sd_model_hash", model.sha256.substr(0, kModelHashDigits)},
      {"sd_vae_name", nullptr},
      {"sd_vae_hash", nullptr},
      {"seed_resize_from_w", -1},
      {"seed_resize_from_h", -1},
      {"denoising_strength", has_strength ? Json(request.denoising_strength()) : Json(nullptr)},
      {"extra_generation_params", std::move(extra)},
      {"index_of_first_image", 0},
      {"infotexts", std::move(infotexts)},
      {"styles", Json::array()},
      {"job_timestamp", SdapiTime(begin)},
      {"clip_skip", skips ? clip_skip->second.number_value() : 1},
      {"is_using_inpainting_conditioning", false},
      {"version", absl::StrCat("hotlora ", HOTLORA_VERSION)},
  });
}

}  // namespace hotlora
