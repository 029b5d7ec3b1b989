#include "src/sdxl/image_encoder_config.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "src/sdxl/config_reader.h"
#include "src/weights/model_unsupported.h"

namespace hotlora {
namespace {

constexpr int64_t kMostPixels = 4096;  // on a side

// Three numbers, one for each channel.
std::array<double, 3> Channels(ConfigReader& reader, const std::string& key, const std::array<double, 3>& otherwise) {
  const nlohmann::json* const value = reader.Find(key);
  if (value == nullptr) {
    return otherwise;
  }
  std::array<double, 3> channels = otherwise;
  bool numbers = value->is_array() && value->size() == channels.size();
  for (size_t i = 0; numbers && i < channels.size(); ++i) {
    numbers = (*value)[i].is_number();
    channels[i] = numbers ? (*value)[i].get<double>() : 1.0;
  }
  if (!numbers) {
    reader.Fault(key, *value, "a list of 3 numbers");
  }
  return channels;
}

// A length that is a number, or an object that has it under `part`.
int64_t Length(ConfigReader& reader, const std::string& key, const char* part, int64_t otherwise) {
  const nlohmann::json* const value = reader.Find(key);
  if (value == nullptr) {
    return otherwise;
  }
  const nlohmann::json number = value->is_object() ? value->value(part, nlohmann::json()) : *value;
  if (!number.is_number_integer() || number.get<double>() < 1 || number.get<double>() > kMostPixels) {
    reader.Fault(key, *value, absl::StrCat("an integer from 1 to ", kMostPixels, ", or an object with it as ", part));
    return otherwise;
  }
  return number.get<int64_t>();
}

void ParsePreprocessor(ConfigReader& reader, ImageEncoderConfig& config) {
  for (const char* const key : {"do_resize", "do_center_crop", "do_rescale", "do_normalize"}) {
    reader.Only(key, true);
  }
  reader.Only("resample", 3);  // Pillow's BICUBIC
  config.edge = Length(reader, "size", "shortest_edge", config.image_size);
  for (const char* const part : {"height", "width"}) {
    const int64_t crop = Length(reader, "crop_size", part, config.image_size);
    reader.Check(crop == config.image_size,
                 absl::StrCat("crop_size has ", part, " ", crop, ", but image_size is ", config.image_size));
  }
  reader.Check(config.edge >= config.image_size,
               absl::StrCat("size is ", config.edge, ", less than image_size ", config.image_size));
  config.rescale = reader.Find("rescale_factor") == nullptr ? config.rescale : reader.Positive("rescale_factor");
  config.mean = Channels(reader, "image_mean", config.mean);
  config.std = Channels(reader, "image_std", config.std);
  for (const double deviation : config.std) {
    reader.Check(deviation > 0.0, "image_std must be above 0");
  }
}

}  // namespace

absl::StatusOr<ImageEncoderConfig> ParseImageEncoderConfig(const nlohmann::json& config_json,
                                                           const nlohmann::json& preprocessor) {
  std::vector<std::string> faults;
  ConfigReader reader("config.json", config_json, faults);
  ImageEncoderConfig config;
  static_cast<ClipConfig&>(config) = ParseClip(reader);
  config.causal = false;
  config.image_size = config.edge = reader.Integer("image_size", kMostPixels);
  config.patch = reader.Integer("patch_size", kMostPixels);
  config.projection = reader.Integer("projection_dim", kMaxWidth);
  reader.Only("model_type", "clip_vision_model");
  reader.Only("num_channels", 3);
  reader.Check(config.patch <= config.image_size, "patch_size is larger than image_size");
  if (!preprocessor.is_null()) {
    ConfigReader preprocessor_reader("preprocessor_config.json", preprocessor, faults);
    ParsePreprocessor(preprocessor_reader, config);
  }
  if (!faults.empty()) {
    return ModelUnsupported(absl::StrCat("the image encoder's configs cannot be used: ", absl::StrJoin(faults, "; ")));
  }
  return config;
}

}  // namespace hotlora
