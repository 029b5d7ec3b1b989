#include "server/sdapi_mapping.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

#include "server/field_names.h"
#include "server/sdapi_controls.h"
#include "server/sdapi_lists.h"
#include "server/sdapi_options.h"
#include "server/sdapi_values.h"
#include "server/status_mapping.h"
#include "src/base/enum_size.h"
#include "src/request/sampler_names.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;
using Json = nlohmann::ordered_json;
using sdapi::v1::GenerateRequest;

std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

template <typename Enum, typename Name>
std::string Names(Name name) {
  std::string names;
  for (const Enum value : AllOf<Enum>()) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", name(value));
  }
  return names;
}

// One of hr_resize_x and hr_resize_y that is not set follows the other.
double HiresScale(const GenerateRequest& message) {
  const double x = message.hr_resize_x(), y = message.hr_resize_y();
  if (x > 0 || y > 0) {
    return x > 0 ? x / message.width() : y / message.height();
  }
  return message.has_hr_scale() ? message.hr_scale() : 2.0;
}

bool IsNone(absl::string_view text) { return text.empty() || absl::EqualsIgnoreCase(text, "None"); }

// Reads the fields of a message into an ImageRequest.
class RequestReader {
 public:
  RequestReader(const GenerateRequest& message, SdapiTask task, const ModelInfo& model)
      : message_(message), img2img_(task == SdapiTask::kImg2Img), model_(model) {}

  MappedImageRequest Read() && {
    ReadTexts();
    ReadNumbers();
    ReadSampler();
    img2img_ ? ReadInitImage() : RefuseInitImage();
    if (message_.enable_hr()) {
      ReadHires();
    }
    ReadSettings();
    RefuseOthers();
    request_.preview_every = kSdapiPreviewEvery;
    return std::move(mapped_);
  }

 private:
  template <typename... Parts>
  void Add(absl::string_view field, const Parts&... parts) {
    mapped_.violations.push_back({std::string(field), absl::StrCat(parts...)});
  }

  void ReadTexts() {
    request_.prompt = message_.prompt();
    if (!message_.negative_prompt().empty()) {
      request_.negative_prompt = message_.negative_prompt();
    }
    request_.prompt_syntax = PromptSyntax::kWeighted;
    request_.long_prompts = true;
    request_.lora_tags = true;
  }

  void Unsigned(absl::string_view field, int32_t value, std::optional<uint32_t>& to) {
    if (value < 0) {
      Add(field, "is ", value, ", which is below 0");
    } else {
      to = static_cast<uint32_t>(value);
    }
  }

  void ReadNumbers() {
    Unsigned("steps", message_.steps(), request_.steps);
    Unsigned("width", message_.width(), request_.width);
    Unsigned("height", message_.height(), request_.height);
    request_.guidance_scale = message_.cfg_scale();
    if (message_.seed() < -1) {
      Add("seed", "is ", message_.seed(), "; allowed are -1 (random) and more");
    } else if (message_.seed() >= 0) {
      request_.seed = static_cast<uint64_t>(message_.seed());
    }
    const int64_t images = int64_t{message_.batch_size()} * message_.n_iter();
    if (message_.batch_size() < 1 || message_.n_iter() < 1 || images > kMaxImages) {
      Add("batch_size", "is ", message_.batch_size(), " and n_iter is ", message_.n_iter(),
          "; both must be at least 1, and their product at most ", kMaxImages);
    } else {
      request_.num_images = static_cast<uint32_t>(images);
    }
  }

  void ReadSampler() {
    const std::string& field = message_.sampler_name().empty() ? kSamplerIndex : kSamplerName;
    const std::string& name = message_.sampler_name().empty() ? message_.sampler_index() : message_.sampler_name();
    const auto [sampler, suffix] = ReadSamplerName(name);
    request_.sampler = sampler;
    if (!request_.sampler.has_value()) {
      Add(field, "is \"", CleanText(name, 100), "\"; allowed are ", Names<Sampler>(SamplerName),
          ", each also with a schedule behind it");
    }
    request_.schedule = suffix;
    if (message_.scheduler().empty()) {
      return;
    }
    const std::optional<NoiseScheduleKind> schedule = FindSchedule(message_.scheduler());
    if (!schedule.has_value()) {
      Add("scheduler", "is \"", CleanText(message_.scheduler(), 100), "\"; allowed are ",
          Names<NoiseScheduleKind>(ScheduleName));
    } else if (!suffix.has_value()) {
      request_.schedule = schedule;
    } else if (*schedule != NoiseScheduleKind::kDefault && *schedule != *suffix) {
      Add("scheduler", "is \"", ScheduleName(*schedule), "\", but ", field, " ends in ", ScheduleName(*suffix));
    }
  }

  // The bytes of an image as JSON has them.
  std::string ReadImage(absl::string_view field, absl::string_view text) {
    std::string fault;
    std::string bytes = DecodeImageText(text, fault);
    if (!fault.empty()) {
      Add(field, fault);
    }
    return bytes;
  }

  void ReadInitImage() {
    request_.strength = message_.denoising_strength();
    if (message_.init_images_size() != 1) {
      Add("init_images", "has ", message_.init_images_size(), " images; allowed is 1");
    } else {
      request_.init_image = ReadImage("init_images[0]", message_.init_images(0));
    }
    Only("resize_mode", message_.has_resize_mode(), message_.resize_mode(), 0);
    Only("initial_noise_multiplier", message_.has_initial_noise_multiplier(), message_.initial_noise_multiplier(), 1);
    OnlyEmpty("latent_mask", message_.latent_mask());
    if (message_.mask().empty()) {
      return;
    }
    request_.mask_image = ReadImage("mask", message_.mask());
    Only("mask_blur", message_.has_mask_blur(), message_.mask_blur(), 0);
    Only("mask_blur_x", message_.has_mask_blur_x(), message_.mask_blur_x(), 0);
    Only("mask_blur_y", message_.has_mask_blur_y(), message_.mask_blur_y(), 0);
    Only("mask_round", message_.has_mask_round(), message_.mask_round(), true);
    Only("inpainting_fill", message_.has_inpainting_fill(), message_.inpainting_fill(), 1);
    Only("inpaint_full_res", message_.has_inpaint_full_res(), message_.inpaint_full_res(), false);
    Only("inpainting_mask_invert", message_.has_inpainting_mask_invert(), message_.inpainting_mask_invert(), 0);
  }

  void RefuseInitImage() {
    if (message_.init_images_size() > 0) {
      Add("init_images", "is a field of img2img");
    }
    OnlyEmpty("mask", message_.mask());
  }

  void ReadHires() {
    if (img2img_) {
      Add("enable_hr", "is a field of txt2img");
      return;
    }
    HiresPass& hires = request_.hires.emplace();
    hires.strength = message_.denoising_strength();
    if (const double scale = HiresScale(message_); ResizeFits(scale)) {
      hires.scale = scale;
    }
    if (message_.hr_second_pass_steps() != 0) {
      Unsigned("hr_second_pass_steps", message_.hr_second_pass_steps(), hires.steps);
    }
    OnlyAs("hr_upscaler", message_.hr_upscaler(), "Lanczos");
    OnlyAs("hr_checkpoint_name", message_.hr_checkpoint_name(), "Use same checkpoint");
    if (const NamedSampler named = ReadSamplerName(message_.hr_sampler_name());
        !named.sampler.has_value() || named.sampler != request_.sampler ||
        named.schedule.value_or(schedule()) != schedule()) {
      OnlyAs("hr_sampler_name", message_.hr_sampler_name(), "Use same sampler");
    }
    if (const auto named = FindSchedule(message_.hr_scheduler()); !named.has_value() || *named != schedule()) {
      OnlyAs("hr_scheduler", message_.hr_scheduler(), "Use same scheduler");
    }
    OnlyEmptyOr("hr_prompt", message_.hr_prompt(), message_.prompt());
    OnlyEmptyOr("hr_negative_prompt", message_.hr_negative_prompt(), message_.negative_prompt());
    OnlyZeroOrLess("firstphase_width", message_.firstphase_width());
    OnlyZeroOrLess("firstphase_height", message_.firstphase_height());
  }

  NoiseScheduleKind schedule() const { return request_.schedule.value_or(NoiseScheduleKind::kDefault); }

  // Whether hr_resize_x and hr_resize_y, if they stand in place of hr_scale, may have that scale.
  bool ResizeFits(double scale) {
    const int64_t x = message_.hr_resize_x(), y = message_.hr_resize_y();
    if (x > 0 && y > 0 && x * message_.height() != y * message_.width()) {
      Add("hr_resize_x", "is ", x, " and hr_resize_y is ", y, "; allowed are sides of the same shape as ",
          message_.width(), "x", message_.height());
      return false;
    }
    if ((x > 0 || y > 0) && !(scale > 1.0 && scale <= kMaxHiresScale)) {
      Add(x > 0 ? "hr_resize_x" : "hr_resize_y", "is ", x > 0 ? x : y, ", ", scale,
          " times the size; allowed are more than 1 and at most ", kMaxHiresScale, " times");
      return false;
    }
    return true;
  }

  // Whether there are few enough entries to look at each.
  bool FitsIn(absl::string_view field, const Struct& entries) {
    if (entries.fields_size() > kMaxOptions) {
      Add(field, "has ", entries.fields_size(), " entries; allowed are at most ", kMaxOptions);
    }
    return entries.fields_size() <= kMaxOptions;
  }

  void ReadSettings() {
    if (!FitsIn("override_settings", message_.override_settings())) {
      return;
    }
    const OptionsInForce in_force(model_);
    for (const auto& [name, set_value] : InOrder(message_.override_settings())) {
      const Value& value = *set_value;
      const std::string field = absl::StrCat("override_settings.", CleanText(name, 60));
      if (value.kind_case() == Value::kNullValue) {
        continue;
      }
      if (name == "CLIP_stop_at_last_layers") {
        ReadWholeNumber(field, value, 1, model_.max_clip_skip + 1, request_.clip_skip);
        request_.clip_skip = request_.clip_skip.value_or(1) - 1;  // there, 1 means no skip
      } else if (name == "jpeg_quality") {
        ReadWholeNumber(field, value, 1, 100, request_.quality);
      } else if (name == "samples_format") {
        ReadFormat(field, value);
      } else if (const std::string fault = in_force.Fault(name, value); !fault.empty()) {
        Add(field, fault);
      }
    }
  }

  void ReadWholeNumber(absl::string_view field, const Value& value, uint32_t low, uint32_t high,
                       std::optional<uint32_t>& to) {
    const double number = value.number_value();
    if (value.kind_case() == Value::kNumberValue && number >= low && number <= high && number == std::floor(number)) {
      to = static_cast<uint32_t>(number);
    } else {
      Add(field, "is ", ToText(value), "; allowed are whole numbers from ", low, " to ", high);
    }
  }

  void ReadFormat(absl::string_view field, const Value& value) {
    const std::string& name = value.string_value();
    if (name == "png") {
      request_.format = ImageFormat::kPng;
    } else if (name == "jpg" || name == "jpeg") {
      request_.format = ImageFormat::kJpeg;
    } else if (name == "webp") {
      request_.format = ImageFormat::kWebp;
    } else {
      Add(field, "is ", ToText(value), "; allowed are \"png\", \"jpg\", \"jpeg\", \"webp\"");
    }
  }

  // Refuses a field that is set to another value than the one that the picture is made with.
  template <typename Value, typename Allowed>
  void Only(absl::string_view field, bool is_set, const Value& value, const Allowed& allowed) {
    if (is_set && !(value == static_cast<Value>(allowed))) {  // so that NaN is refused too
      if constexpr (std::is_same_v<Value, bool>) {
        Add(field, "is ", value ? "true" : "false", ", which is not supported; allowed is ",
            allowed ? "true" : "false");
      } else {
        Add(field, "is ", value, ", which is not supported; allowed is ", allowed);
      }
    }
  }
  void OnlyEmpty(absl::string_view field, absl::string_view text) {
    if (!text.empty()) {
      Add(field, "is not supported; leave it empty");
    }
  }
  void OnlyNone(absl::string_view field, absl::string_view text) {
    if (!IsNone(text)) {
      Add(field, "is \"", CleanText(text, 100), "\", which is not supported; leave it empty");
    }
  }
  // "" and "None" are as if unset.
  void OnlyAs(absl::string_view field, absl::string_view text, absl::string_view allowed) {
    if (!IsNone(text) && !absl::EqualsIgnoreCase(text, allowed)) {
      Add(field, "is \"", CleanText(text, 100), "\", which is not supported; allowed is \"", allowed, "\"");
    }
  }
  void OnlyEmptyOr(absl::string_view field, const std::string& text, const std::string& allowed) {
    if (text != allowed) {
      OnlyEmpty(field, text);
    }
  }
  void OnlyZeroOrLess(absl::string_view field, int32_t value) {
    if (value > 0) {
      Add(field, "is ", value, ", which is not supported; allowed are 0 and less");
    }
  }

  void RefuseOthers() {
    Only("subseed_strength", message_.has_subseed_strength(), message_.subseed_strength(), 0);
    OnlyZeroOrLess("seed_resize_from_h", message_.seed_resize_from_h());
    OnlyZeroOrLess("seed_resize_from_w", message_.seed_resize_from_w());
    ReadNoiseSettings();
    Only("s_min_uncond", message_.has_s_min_uncond(), message_.s_min_uncond(), 0);
    Only("s_churn", message_.has_s_churn(), message_.s_churn(), 0);
    OnlyEmpty("firstpass_image", message_.firstpass_image());
    if (message_.styles_size() > 0) {
      Add("styles", "has ", message_.styles_size(), " entries; styles are not supported, write them into the prompt");
    }
    Only("restore_faces", message_.has_restore_faces(), message_.restore_faces(), false);
    Only("tiling", message_.has_tiling(), message_.tiling(), false);
    OnlyNone("refiner_checkpoint", message_.refiner_checkpoint());
    Only("disable_extra_networks", message_.has_disable_extra_networks(), message_.disable_extra_networks(), false);
    OnlyNone("script_name", message_.script_name());
    OnlyEmpty("infotext", message_.infotext());
    if (FitsIn("alwayson_scripts", message_.alwayson_scripts())) {
      ReadScripts(message_.alwayson_scripts(), message_.width(), message_.height(), mapped_);
    }
  }

  // The amounts of noise that samplers add; the others have no use for them.
  void ReadNoiseSettings() {
    const Sampler sampler = request_.sampler.value_or(Sampler::kEuler);
    if (sampler == Sampler::kDdim || sampler == Sampler::kTcd) {
      if (message_.has_eta() && message_.eta() != 1) {  // many clients always send 1
        request_.eta = message_.eta();
      }
    } else if (AddsNoise(sampler)) {
      Only("eta", message_.has_eta(), message_.eta(), 1);
    }
    if (AddsNoise(sampler) || request_.eta.value_or(0.0) > 0.0) {
      Only("s_noise", message_.has_s_noise(), message_.s_noise(), 1);
    }
  }

  static bool AddsNoise(Sampler sampler) {
    constexpr Sampler kNoisy[] = {Sampler::kEulerAncestral, Sampler::kDpm2Ancestral, Sampler::kDpmpp2MSde,
                                  Sampler::kDpmpp3MSde,     Sampler::kLcm,           Sampler::kTcd};
    return std::find(std::begin(kNoisy), std::end(kNoisy), sampler) != std::end(kNoisy);
  }

  static inline const std::string kSamplerName = "sampler_name", kSamplerIndex = "sampler_index";

  const GenerateRequest& message_;
  const bool img2img_;
  const ModelInfo& model_;
  MappedImageRequest mapped_;
  ImageRequest& request_ = mapped_.request;
};

}  // namespace

const char* TaskName(SdapiTask task) { return task == SdapiTask::kTxt2Img ? "txt2img" : "img2img"; }

GenerateRequest WithDefaults(GenerateRequest message, SdapiTask task) {
  if (!message.has_steps()) message.set_steps(50);
  if (!message.has_cfg_scale()) message.set_cfg_scale(7);
  if (!message.has_width()) message.set_width(512);
  if (!message.has_height()) message.set_height(512);
  if (!message.has_batch_size()) message.set_batch_size(1);
  if (!message.has_n_iter()) message.set_n_iter(1);
  if (!message.has_seed()) message.set_seed(-1);
  if (message.sampler_index().empty()) message.set_sampler_index(SamplerName(Sampler::kEuler));
  if ((task == SdapiTask::kImg2Img || message.enable_hr()) && !message.has_denoising_strength()) {
    message.set_denoising_strength(0.75);
  }
  return message;
}

MappedImageRequest FromProto(const GenerateRequest& message, SdapiTask task, const ModelInfo& model) {
  return RequestReader(message, task, model).Read();
}

absl::Status InSdapiWords(const absl::Status& status) {
  static constexpr FieldName kNames[] = {
      {"guidance_scale", "cfg_scale"},
      {"sampler", "sampler_name", {}, WithSdapiNames},
      {"schedule", "scheduler", {}, WithSdapiNames},
      {"steps", "steps", {}, WithSdapiNames},
      {"eta", "eta", {}, WithSdapiNames},
      {"strength", "denoising_strength"},
      {"hires.scale", "hr_scale"},
      {"hires.strength", "denoising_strength"},
      {"hires.steps", "hr_second_pass_steps", {}, WithSdapiNames},
      {"mask_image", "mask"},
      {"init_image", "init_images[0]"},
      {"num_images", "batch_size"},
      {"adapters", "prompt"},
  };
  return WithFieldNames(WithUnitNames(status), kNames);
}

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
    extra["Hires upscale"] = HiresScale(request);
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
