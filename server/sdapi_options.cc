#include "server/sdapi_options.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "server/sdapi_values.h"
#include "server/status_mapping.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;
using Json = nlohmann::ordered_json;

Json OptionsOf(const ModelInfo& model) {
  return {{"sd_model_checkpoint", ModelTitle(model)},
          {"sd_checkpoint_hash", model.sha256},
          {"sd_vae", "Automatic"},
          {"CLIP_stop_at_last_layers", 1},
          {"samples_format", "png"},
          {"jpeg_quality", 90},
          {"enable_pnginfo", true},
          {"emphasis", "No norm"},
          {"comma_padding_backtrack", 0},
          {"randn_source", "CPU"},
          {"eta_noise_seed_delta", 0},
          {"sd_noise_schedule", "Default"},
          {"sdxl_crop_left", 0},
          {"sdxl_crop_top", 0},
          {"token_merging_ratio", 0},
          {"img2img_fix_steps", false},
          {"img2img_color_correction", false},
          {"initial_noise_multiplier", 1},
          {"live_previews_enable", true},
          {"live_previews_image_format", "jpeg"},
          {"show_progress_every_n_steps", kSdapiPreviewEvery}};
}

bool NamesModel(absl::string_view name, const ModelInfo& model) {
  absl::string_view plain = name;
  const bool file = absl::ConsumeSuffix(&plain, ".safetensors");
  return name == ModelTitle(model) || name == CleanText(model.name) || (file && plain == CleanText(model.name)) ||
         name == model.sha256 || (name.size() == kModelHashDigits && absl::StartsWith(model.sha256, name));
}

bool Equals(const Value& value, const Json& in_force) {
  switch (value.kind_case()) {
    case Value::kStringValue:
      return in_force.is_string() && in_force.get_ref<const std::string&>() == value.string_value();
    case Value::kNumberValue:
      return in_force.is_number() && in_force.get<double>() == value.number_value();
    case Value::kBoolValue:
      return in_force.is_boolean() && in_force.get<bool>() == value.bool_value();
    default:
      return false;
  }
}

}  // namespace

std::string ModelTitle(const ModelInfo& model) {
  return absl::StrCat(CleanText(model.name), " [", model.sha256.substr(0, kModelHashDigits), "]");
}

OptionsInForce::OptionsInForce(const ModelInfo& model) : model_(model), options_(OptionsOf(model)) {}

std::string OptionsInForce::Fault(absl::string_view name, const Value& value) const {
  if (value.kind_case() == Value::kNullValue ||
      (value.kind_case() == Value::kListValue && value.list_value().values_size() == 0)) {
    return "";
  }
  const auto found = options_.find(std::string(name));
  if (found == options_.end()) {
    return "is not an option of this server";
  }
  if (name == "sd_model_checkpoint" && NamesModel(value.string_value(), model_)) {
    return "";
  }
  if (name == "sd_vae" && (value.string_value() == "None" || value.string_value() == "automatic")) {
    return "";
  }
  return Equals(value, *found) ? "" : absl::StrCat("is ", ToText(value), "; in force, and allowed, is ", found->dump());
}

absl::Status OptionsInForce::Check(const Struct& options) const {
  if (options.fields_size() > kMaxOptions) {
    return InvalidRequest(
        {{"options", absl::StrCat("has ", options.fields_size(), " entries; allowed are at most ", kMaxOptions)}});
  }
  std::vector<FieldViolation> violations;
  for (const auto& [name, value] : InOrder(options)) {
    if (std::string fault = Fault(name, *value); !fault.empty()) {
      violations.push_back({absl::StrCat("options.", CleanText(name, 60)), std::move(fault)});
    }
  }
  return violations.empty() ? absl::OkStatus() : InvalidRequest(std::move(violations));
}

}  // namespace hotlora
