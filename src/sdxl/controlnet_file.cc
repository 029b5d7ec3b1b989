#include "src/sdxl/controlnet_file.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "src/base/json_text.h"
#include "src/base/status_macros.h"
#include "src/weights/model_unsupported.h"
#include "src/weights/sgm_names.h"
#include "src/weights/single_file_header.h"
#include "src/weights/stored_views.h"

namespace hotlora {
namespace {

constexpr char kComponent[] = "controlnet";
constexpr char kPrefix[] = "control_model.";

// How a single file names its tensors.
struct FileNames {
  std::string prefix;  // before each name
  ComponentWeights::StoredNames stored_name;

  std::string operator()(const std::string& name) const {
    const std::string translated = stored_name ? stored_name(name) : name;
    return absl::StrCat(prefix, translated.empty() ? name : translated);
  }
};

// Names alone tell the kind of a file.
absl::StatusOr<FileNames> NamesOf(const SafetensorsFile& header, int layers_per_block) {
  FileNames names;
  if (header.Find("lora_controlnet") != nullptr) {
    return ModelUnsupported(
        "the file is a control LoRA, which needs its base model's weights; a whole ControlNet is needed");
  }
  if (header.Find("controlnet_cond_embedding.conv_in.weight") == nullptr) {
    names.prefix = HasPrefix(header, kPrefix) ? kPrefix : "";
    names.stored_name = [layers_per_block](const std::string& name) {
      return SgmControlNetParameter(name, layers_per_block);
    };
    if (header.Find(names("controlnet_cond_embedding.conv_in.weight")) == nullptr) {
      return ModelUnsupported(
          "the file is not a ControlNet: it has neither controlnet_cond_embedding.conv_in.weight nor "
          "input_hint_block.0.weight");
    }
  }
  if (const std::string needed = names("add_embedding.linear_1.weight"); header.Find(needed) == nullptr) {
    return ModelUnsupported(absl::StrCat("the file is a ControlNet for Stable Diffusion 1 or 2, as it has no ", needed,
                                         "; only those for SDXL can be used"));
  }
  return names;
}

}  // namespace

absl::StatusOr<NetworkFile<ControlNet>> ReadControlNet(const SafetensorsFile& file,
                                                       const std::optional<std::string>& config_text,
                                                       const SdxlConfig& model, const std::string& config_name) {
  ABSL_ASSIGN_OR_RETURN(const FileNames names, NamesOf(file, static_cast<int>(model.unet.layers_per_block)));
  ControlNetConfig config = ControlNetConfigOf(
      [&](const std::string& name) {
        const StoredTensor* const tensor = file.Find(names(name));
        return tensor == nullptr ? nullptr : &tensor->shape;
      },
      model.unet);
  if (config_text.has_value()) {
    const absl::StatusOr<nlohmann::json> json = ParseJsonObject(*config_text);
    if (!json.ok()) {
      return absl::FailedPreconditionError(absl::StrCat(config_name, " ", json.status().message()));
    }
    ABSL_ASSIGN_OR_RETURN(config, ParseControlNetConfig(config_name, *json));
  }
  ABSL_RETURN_IF_ERROR(CheckFits(config, model));
  ABSL_ASSIGN_OR_RETURN(auto tensors, ViewTensors(file));
  return NetworkFile<ControlNet>{std::move(config), ComponentWeights(kComponent, std::move(tensors), names)};
}

}  // namespace hotlora
