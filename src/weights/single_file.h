#ifndef HOTLORA_SRC_WEIGHTS_SINGLE_FILE_H_
#define HOTLORA_SRC_WEIGHTS_SINGLE_FILE_H_

#include "absl/status/statusor.h"

#include "src/weights/checkpoint.h"

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
// of another kind, see single_file_header.h.
absl::StatusOr<Checkpoint> ReadSingleFile(const CheckpointSource& source);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_SINGLE_FILE_H_
