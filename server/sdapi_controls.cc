#include "server/sdapi_controls.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"

#include "server/field_names.h"
#include "server/sdapi_values.h"
#include "server/status_mapping.h"
#include "src/image/image_header.h"
#include "src/request/control_check.h"

namespace hotlora {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

constexpr int kMostUnits = 100;  // web UIs have 3 to 10

// The control types of union nets, in their order.
constexpr absl::string_view kUnionTypes[] = {"OpenPose",   "Depth",        "Soft Edge", "Hard Edge",
                                             "Normal Map", "Segmentation", "Tile",      "Inpaint"};
constexpr absl::string_view kResizeModes[] = {"Just Resize", "Crop and Resize", "Resize and Fill"};

bool IsNull(const Value* value) { return value == nullptr || value->kind_case() == Value::kNullValue; }

bool IsText(const Value& value, absl::string_view text) {
  return value.kind_case() == Value::kStringValue && absl::EqualsIgnoreCase(value.string_value(), text);
}

// As if unset.
bool IsBlank(const Value* value) {
  return IsNull(value) || IsText(*value, "") || (value->kind_case() == Value::kBoolValue && !value->bool_value()) ||
         (value->kind_case() == Value::kListValue && value->list_value().values().empty()) ||
         (value->kind_case() == Value::kStructValue && value->struct_value().fields().empty());
}

std::string WithoutOurNames(absl::string_view description) {
  std::vector<std::pair<std::string, std::string>> names;
  for (size_t i = 0; i < kMaxControls; ++i) {
    names.emplace_back(absl::StrCat("controls[", i, "].end"), "guidance_end");
  }
  return absl::StrReplaceAll(description, names);
}

// Reads one unit.
class UnitReader {
 public:
  UnitReader(std::string path, const Struct& unit, std::vector<FieldViolation>& violations)
      : path_(std::move(path)), unit_(unit), violations_(violations) {}

  // Whether it is to have an effect: as in older versions of the extension, unset is true.
  bool enabled() const {
    const Value* const value = Find("enabled");
    return IsNull(value) || !(value->kind_case() == Value::kBoolValue && !value->bool_value());
  }

  bool is_image_prompt() const {
    const Value* const module = Find("module");
    return module != nullptr &&
           absl::c_any_of(kImagePromptModules, [&](absl::string_view name) { return IsText(*module, name); });
  }

  // An image prompt acts in all steps.
  ImagePromptRef ReadImagePrompt() {
    CheckUnsupported();
    OnlyNumber("guidance_start", 0);
    OnlyNumber("guidance_end", 1);
    OnlyNumber("guidance", 1);
    ImagePromptRef prompt;
    prompt.name = ReadModel();
    prompt.images = {ReadPicture()};
    prompt.scale = ReadNumber("weight");
    return prompt;
  }

  ControlRef ReadControl(int64_t width, int64_t height) {
    OnlyTexts("module", {"none", ""});
    CheckUnsupported();
    ControlRef control;
    control.name = ReadModel();
    control.image = ReadPicture();
    control.scale = ReadNumber("weight");
    control.start = ReadNumber("guidance_start");
    control.end = ReadNumber(Find("guidance") != nullptr ? "guidance" : "guidance_end");
    control.type = ReadType();
    CheckShape(control.image, width, height);
    return control;
  }

 private:
  template <typename... Parts>
  void Add(absl::string_view field, const Parts&... parts) {
    violations_.push_back({absl::StrCat(path_, ".", field), absl::StrCat(parts...)});
  }

  void CheckUnsupported() {
    OnlyTexts("input_mode", {"simple"});
    OnlyTexts("hr_option", {"Both"});
    OnlyOneOf("control_mode", {"Balanced"});
    for (const char* const field : {"mask", "mask_image", "effective_region_mask", "advanced_weighting",
                                    "ipadapter_input", "batch_images", "guessmode", "animatediff_batch"}) {
      if (!IsBlank(Find(field))) {
        Add(field, "is not supported; leave it out");
      }
    }
  }

  void OnlyNumber(const std::string& field, double allowed) {
    const std::optional<double> number = ReadNumber(field);
    if (number.has_value() && *number != allowed) {
      Add(field, "is ", *number, ", which is not supported for an image prompt; allowed is ", allowed);
    }
  }

  const Value* Find(const std::string& field) const {
    const auto found = unit_.fields().find(field);
    return found == unit_.fields().end() ? nullptr : &found->second;
  }

  void OnlyTexts(const std::string& field, std::vector<absl::string_view> allowed) {
    const Value* const value = Find(field);
    if (!IsNull(value) &&
        std::none_of(allowed.begin(), allowed.end(), [&](absl::string_view text) { return IsText(*value, text); })) {
      Add(field, "is ", ToText(*value), ", which is not supported; allowed is \"", allowed.front(), "\"");
    }
  }

  // The place of a value among `names`: by name, or as a number. Unset: nullopt.
  std::optional<size_t> ReadChoice(const std::string& field, absl::Span<const absl::string_view> names) {
    const Value* const value = Find(field);
    if (IsNull(value)) {
      return std::nullopt;
    }
    for (size_t i = 0; i < names.size(); ++i) {
      const bool is_number =
          value->kind_case() == Value::kNumberValue && value->number_value() == static_cast<double>(i);
      if (is_number || IsText(*value, names[i])) {
        return i;
      }
    }
    Add(field, "is ", ToText(*value), ", which is not supported; allowed are ", absl::StrJoin(names, ", "));
    return std::nullopt;
  }

  void OnlyOneOf(const std::string& field, absl::Span<const absl::string_view> names) { ReadChoice(field, names); }

  std::string ReadModel() {
    const Value* const value = Find("model");
    if (IsNull(value) || IsText(*value, "None") || IsText(*value, "")) {
      Add("model", "is missing");
      return "";
    }
    if (value->kind_case() != Value::kStringValue) {
      Add("model", "is ", ToText(*value), "; it must be the name of a ControlNet or an image prompt");
    }
    return value->string_value();
  }

  // The picture is a text, or an object with one as `image` and no mask.
  std::string ReadPicture() {
    if (Find("image") != nullptr && Find("input_image") != nullptr) {
      Add("input_image", "is another name of image, which is there too");
      return "";
    }
    const std::string field = Find("input_image") != nullptr ? "input_image" : "image";
    const Value* value = Find(field);
    if (!IsNull(value) && value->kind_case() == Value::kStructValue) {
      const auto& parts = value->struct_value().fields();
      if (const auto mask = parts.find("mask"); mask != parts.end() && !IsBlank(&mask->second)) {
        Add(field, "has a mask, which is not supported; leave it out");
      }
      const auto image = parts.find("image");
      value = image == parts.end() ? nullptr : &image->second;
    }
    if (IsNull(value)) {
      Add(field, "is missing");
      return "";
    }
    if (value->kind_case() != Value::kStringValue) {
      Add(field, "is ", ToText(*value), "; allowed are an image's bytes in base64, alone or as a data URI");
      return "";
    }
    std::string fault;
    std::string bytes = DecodeImageText(value->string_value(), fault);
    if (!fault.empty()) {
      Add(field, fault);
    }
    return bytes;
  }

  std::optional<double> ReadNumber(const std::string& field) {
    const Value* const value = Find(field);
    if (IsNull(value)) {
      return std::nullopt;
    }
    if (value->kind_case() != Value::kNumberValue) {
      Add(field, "is ", ToText(*value), "; it must be a number");
      return std::nullopt;
    }
    return value->number_value();
  }

  std::optional<uint32_t> ReadType() {
    const Value* const value = Find("union_control_type");
    if (IsNull(value) || IsText(*value, "Unknown")) {
      return std::nullopt;
    }
    for (size_t i = 0; i < std::size(kUnionTypes); ++i) {
      if (IsText(*value, kUnionTypes[i])) {
        return static_cast<uint32_t>(i);
      }
    }
    Add("union_control_type", "is ", ToText(*value), "; allowed are ", absl::StrJoin(kUnionTypes, ", "),
        " and Unknown");
    return std::nullopt;
  }

  // Pictures are resized to the image's sides here. The other modes do the same only to a picture of the same shape.
  void CheckShape(const std::string& picture, int64_t width, int64_t height) {
    const std::optional<size_t> mode = ReadChoice("resize_mode", kResizeModes);
    const absl::StatusOr<ImageHeader> header = ReadImageHeader(picture);
    if (mode.value_or(0) == 0 || !header.ok()) {  // the request is refused for its picture
      return;
    }
    const int64_t picture_width = header->upright_width(), picture_height = header->upright_height();
    if (picture_width * height != picture_height * width) {
      Add("resize_mode", "is \"", kResizeModes[*mode], "\", which is not supported for a picture of ", picture_width,
          "x", picture_height, " and an image of ", width, "x", height, "; allowed is \"", kResizeModes[0],
          "\", or a picture of the same shape");
    }
  }

  const std::string path_;
  const Struct& unit_;
  std::vector<FieldViolation>& violations_;
};

bool IsControlScript(absl::string_view name) { return absl::EqualsIgnoreCase(name, "controlnet"); }

void ReadUnits(absl::string_view name, const Value& script, int64_t width, int64_t height, MappedImageRequest& mapped) {
  const std::string path = absl::StrCat("alwayson_scripts.", CleanText(name, 60), ".args");
  const auto& fields = script.struct_value().fields();
  const auto args = fields.find("args");
  if (args == fields.end() || args->second.kind_case() != Value::kListValue) {
    mapped.violations.push_back({path, "is not a list of units"});
    return;
  }
  const auto& units = args->second.list_value().values();
  if (units.size() > kMostUnits) {
    mapped.violations.push_back({path, absl::StrCat("has ", units.size(), " units; allowed are at most ", kMostUnits)});
    return;
  }
  for (int i = 0; i < units.size(); ++i) {
    const std::string unit_path = absl::StrCat(path, "[", i, "]");
    if (units[i].kind_case() == Value::kStructValue) {
      UnitReader reader(unit_path, units[i].struct_value(), mapped.violations);
      if (reader.enabled() && !units[i].struct_value().fields().empty()) {
        if (reader.is_image_prompt()) {
          mapped.request.image_prompts.push_back(reader.ReadImagePrompt());
        } else {
          mapped.request.controls.push_back(reader.ReadControl(width, height));
        }
      }
    } else if (!IsBlank(&units[i])) {
      mapped.violations.push_back({unit_path, absl::StrCat("is ", ToText(units[i]), "; it must be an object")});
    }
  }
}

}  // namespace

void ReadScripts(const Struct& scripts, int64_t width, int64_t height, MappedImageRequest& mapped) {
  for (const auto& [name, script] : InOrder(scripts)) {
    if (IsIdle(*script)) {
      continue;
    }
    if (IsControlScript(name)) {
      ReadUnits(name, *script, width, height, mapped);
    } else {
      mapped.violations.push_back({absl::StrCat("alwayson_scripts.", CleanText(name, 60)),
                                   "is not supported; of scripts, controlnet alone runs here"});
    }
  }
}

void DropControlPictures(Struct& scripts) {
  for (auto& [name, script] : *scripts.mutable_fields()) {
    if (!IsControlScript(name) || script.kind_case() != Value::kStructValue) {
      continue;
    }
    for (Value& unit :
         *(*script.mutable_struct_value()->mutable_fields())["args"].mutable_list_value()->mutable_values()) {
      if (unit.kind_case() == Value::kStructValue) {
        unit.mutable_struct_value()->mutable_fields()->erase("image");
        unit.mutable_struct_value()->mutable_fields()->erase("input_image");
      }
    }
  }
}

absl::Status WithUnitNames(const absl::Status& status) {
  static constexpr absl::string_view kUnits = "alwayson_scripts.controlnet.args";
  static constexpr FieldName kNames[] = {
      {"controls", kUnits},
      {"controls[].name", kUnits, "model of ControlNet unit #"},
      {"controls[].image", kUnits, "image of ControlNet unit #"},
      {"controls[].scale", kUnits, "weight of ControlNet unit #"},
      {"controls[].start", kUnits, "guidance_start of ControlNet unit #", WithoutOurNames},
      {"controls[].end", kUnits, "guidance_end of ControlNet unit #"},
      {"controls[].type", kUnits, "union_control_type of ControlNet unit #"},
      {"image_prompts", kUnits},
      {"image_prompts[].name", kUnits, "model of image prompt unit #"},
      {"image_prompts[].images[0]", kUnits, "image of image prompt unit #"},
      {"image_prompts[].scale", kUnits, "weight of image prompt unit #"},
  };
  return WithFieldNames(status, kNames);
}

}  // namespace hotlora
