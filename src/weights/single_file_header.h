#ifndef HOTLORA_SRC_WEIGHTS_SINGLE_FILE_HEADER_H_
#define HOTLORA_SRC_WEIGHTS_SINGLE_FILE_HEADER_H_

// What the header of a checkpoint of one file says of the model, before its weights are read. No LibTorch here.

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <nlohmann/json.hpp>

#include "src/weights/safetensors_file.h"

namespace hotlora {

// Whether the name of a tensor of `header` begins with `prefix`.
bool HasPrefix(const SafetensorsFile& header, absl::string_view prefix);

// FailedPrecondition, by name, if the tensors of `header` are not those of an SDXL base model: a refiner, an
// inpainting or editing model, an EDM model (Playground), SD 1 or 2, SD 3, Flux, an adapter, or a UNet or VAE alone.
absl::Status CheckKind(const SafetensorsFile& header);

// What `header` says of the noise schedule, into `scheduler_config`: v-prediction by a tensor `v_pred` or the metadata
// `modelspec.prediction_type`; with a tensor `ztsnr` betas rescaled to zero terminal SNR. FailedPrecondition if it
// asks for another prediction, or for zero terminal SNR without v-prediction.
absl::Status ApplyPrediction(const SafetensorsFile& header, nlohmann::json& scheduler_config);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_SINGLE_FILE_HEADER_H_
