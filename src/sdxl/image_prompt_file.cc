#include "src/sdxl/image_prompt_file.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include <nlohmann/json.hpp>

#include "src/base/json_text.h"
#include "src/base/status_macros.h"
#include "src/weights/leftovers.h"
#include "src/weights/stored_views.h"

namespace hotlora {
namespace {

constexpr char kEncoder[] = "image_encoder";

absl::StatusOr<nlohmann::json> Parse(absl::string_view name, const std::string& text) {
  absl::StatusOr<nlohmann::json> json = ParseJsonObject(text);
  return json.ok() ? std::move(json) : absl::FailedPreconditionError(absl::StrCat(name, " ", json.status().message()));
}

}  // namespace

absl::StatusOr<NetworkFile<ImagePrompt>> ReadImagePrompt(const SafetensorsFile& file, const SdxlConfig& model) {
  ABSL_ASSIGN_OR_RETURN(ImagePromptConfig config, ImagePromptConfigOf(file, model));
  ABSL_ASSIGN_OR_RETURN(auto tensors, ViewTensors(file));
  return NetworkFile<ImagePrompt>{std::move(config), ComponentWeights("image prompt", std::move(tensors))};
}

absl::StatusOr<NetworkFile<ImageEncoder>> ReadImageEncoder(const SafetensorsFile& file, const std::string& config,
                                                           const std::optional<std::string>& preprocessor) {
  ABSL_ASSIGN_OR_RETURN(const nlohmann::json config_json, Parse("config.json", config));
  nlohmann::json preprocessor_json;
  if (preprocessor.has_value()) {
    ABSL_ASSIGN_OR_RETURN(preprocessor_json, Parse("preprocessor_config.json", *preprocessor));
  }
  ABSL_ASSIGN_OR_RETURN(ImageEncoderConfig parsed, ParseImageEncoderConfig(config_json, preprocessor_json));
  ABSL_ASSIGN_OR_RETURN(auto tensors,
                        ViewTensors(file, [](absl::string_view name) { return IsLeftoverOfFolder(kEncoder, name); }));
  return NetworkFile<ImageEncoder>{std::move(parsed), ComponentWeights(kEncoder, std::move(tensors))};
}

}  // namespace hotlora
