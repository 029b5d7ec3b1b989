#include "src/weights/single_file_header.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "src/weights/model_unsupported.h"

namespace hotlora {
namespace {

constexpr char kFirst[] = "model.diffusion_model.input_blocks.0.0.weight";
constexpr char kText2[] = "conditioner.embedders.1.model.";

bool HasPart(const SafetensorsFile& header, absl::string_view part) {
  return std::any_of(header.tensors().begin(), header.tensors().end(),
                     [&](const StoredTensor& tensor) { return absl::StrContains(tensor.name, part); });
}

// Models that have no SDXL text encoders where ours has them.
absl::Status RefuseWithoutEncoders(const SafetensorsFile& header) {
  if (HasPart(header, "lora_down.weight") || HasPart(header, "lora_A") || HasPart(header, "lora_up.weight") ||
      HasPrefix(header, "lora_unet_") || HasPrefix(header, "lycoris_")) {
    return ModelUnsupported(
        "the file is an adapter (LoRA), not a checkpoint; it belongs into the folder of --adapters");
  }
  if (HasPart(header, "joint_blocks.")) {
    return ModelUnsupported("the file is a Stable Diffusion 3 checkpoint; only SDXL can be served");
  }
  if (HasPart(header, "double_blocks.")) {
    return ModelUnsupported("the file is a Flux checkpoint; only SDXL can be served");
  }
  if (HasPrefix(header, "conditioner.embedders.0.model.")) {
    return ModelUnsupported("the file is an SDXL refiner; only SDXL base models can be served");
  }
  if (HasPrefix(header, "cond_stage_model.")) {
    return ModelUnsupported(absl::StrCat("the file is a Stable Diffusion ",
                                         HasPrefix(header, "cond_stage_model.model.") ? "2" : "1",
                                         " checkpoint; only SDXL can be served"));
  }
  if (HasPart(header, "input_blocks.") || HasPart(header, "down_blocks.0.resnets.0.time_emb_proj.")) {
    return ModelUnsupported("the file is a UNet alone, without text encoders; a whole SDXL checkpoint is needed");
  }
  if (HasPart(header, "decoder.conv_in.")) {
    return ModelUnsupported("the file is a VAE alone; it may be given as --vae, beside a whole SDXL checkpoint");
  }
  return ModelUnsupported("the file is not an SDXL checkpoint: it has no tensor below conditioner.embedders.1.model.");
}

}  // namespace

bool HasPrefix(const SafetensorsFile& header, absl::string_view prefix) {
  return std::any_of(header.tensors().begin(), header.tensors().end(),
                     [&](const StoredTensor& tensor) { return absl::StartsWith(tensor.name, prefix); });
}

absl::Status CheckKind(const SafetensorsFile& header) {
  if (header.Find("edm_mean") != nullptr || header.Find("edm_std") != nullptr) {
    return ModelUnsupported("the file is an EDM model (Playground 2.5), whose noise schedule is not supported");
  }
  if (HasPrefix(header, "edm_vpred.")) {
    return ModelUnsupported("the file is an EDM model with v-prediction, whose noise schedule is not supported");
  }
  if (!HasPrefix(header, kText2)) {
    return RefuseWithoutEncoders(header);
  }
  const StoredTensor* const first = header.Find(kFirst);
  if (first == nullptr) {
    return ModelUnsupported("the file has no UNet: model.diffusion_model.input_blocks.0.0.weight is missing");
  }
  const int64_t channels = first->shape.size() == 4 ? first->shape[1] : 0;
  if (channels == 9 || channels == 8) {
    return ModelUnsupported(absl::StrCat("the file is an ", channels == 9 ? "inpainting" : "editing",
                                         " model (its UNet takes ", channels,
                                         " channels); only SDXL base models can be served"));
  }
  return absl::OkStatus();
}

absl::Status ApplyPrediction(const SafetensorsFile& header, nlohmann::json& scheduler_config) {
  bool v_prediction = header.Find("v_pred") != nullptr;
  const auto said = header.metadata().find("modelspec.prediction_type");
  if (said != header.metadata().end() && !said->second.empty()) {
    if (said->second == "v" || said->second == "v_prediction") {
      v_prediction = true;
    } else if (said->second != "epsilon") {
      return ModelUnsupported(absl::StrCat("the file's modelspec.prediction_type is \"", said->second.substr(0, 40),
                                           "\"; supported are epsilon and v"));
    }
  }
  if (v_prediction) {
    scheduler_config["prediction_type"] = "v_prediction";
  }
  if (header.Find("ztsnr") != nullptr) {
    if (scheduler_config.value("prediction_type", nlohmann::json()) != "v_prediction") {
      return ModelUnsupported("the file asks for zero terminal SNR (ztsnr) without v-prediction (v_pred)");
    }
    scheduler_config["rescale_betas_zero_snr"] = true;
  }
  return absl::OkStatus();
}

}  // namespace hotlora
