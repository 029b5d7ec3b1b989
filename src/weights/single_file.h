#ifndef HOTLORA_SRC_WEIGHTS_SINGLE_FILE_H_
#define HOTLORA_SRC_WEIGHTS_SINGLE_FILE_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "src/weights/checkpoint.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// Reads an SDXL checkpoint of one safetensors file, in the names of Stability's SGM code. Its parts:
//
//   model.diffusion_model.               UNet
//   first_stage_model.                   VAE; not needed if source.vae names another
//   conditioner.embedders.0.transformer. first text encoder, in transformers' names
//   conditioner.embedders.1.model.       second one, in OpenCLIP's: q, k, v as one tensor of three times the rows,
//                                        text_projection transposed
//
// What programs left behind (leftovers.h) is passed over; every other tensor is an error that names it. Such a file has
// no configs: they are stock SDXL's, or those of source.model_config, whose tokenizers, if it has them, are taken
// too. A VAE file is read with the same configs. Errors as ReadCheckpoint; reason MODEL_UNSUPPORTED if the file is
// of another kind, see CheckKind.
absl::StatusOr<Checkpoint> ReadSingleFile(const CheckpointSource& source);

// FailedPrecondition, by name, if the tensors of `header` are not those of an SDXL base model: a refiner, an
// inpainting or editing model, an EDM model (Playground), SD 1 or 2, SD 3, Flux, an adapter, or a UNet or VAE alone.
absl::Status CheckKind(const SafetensorsFile& header);

// What `header` says of the noise schedule, into `scheduler_config`: v-prediction by a tensor `v_pred` or the metadata
// `modelspec.prediction_type`; with a tensor `ztsnr` betas rescaled to zero terminal SNR. FailedPrecondition if it
// asks for another prediction, or for zero terminal SNR without v-prediction.
absl::Status ApplyPrediction(const SafetensorsFile& header, nlohmann::json& scheduler_config);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_SINGLE_FILE_H_
