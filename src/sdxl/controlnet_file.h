#ifndef HOTLORA_SRC_SDXL_CONTROLNET_FILE_H_
#define HOTLORA_SRC_SDXL_CONTROLNET_FILE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "src/sdxl/controlnet.h"
#include "src/sdxl/controlnet_config.h"
#include "src/sdxl/loaded_network.h"

namespace hotlora {

using ControlNetFile = NetworkFile<ControlNetConfig>;
using LoadedControlNet = LoadedNetwork<ControlNet>;

// Reads a ControlNet for the model.
//
//   folder       config.json, and diffusion_pytorch_model in the spellings of ReadCheckpoint
//   single file  in diffusers' names, or in SGM's (input_blocks., zero_convs., input_hint_block.) with or without
//                "control_model." before them. `NAME.json` beside NAME.safetensors is its config.json; without it the
//                config is that of ControlNetConfigOf
//
// FailedPrecondition (mostly reason MODEL_UNSUPPORTED): the file is of another kind (a ControlNet for SD 1 or 2, a
// control LoRA, a UNet, an adapter), does not fit the model, or holds dtypes other than F64, F32, F16, BF16. DataLoss:
// no sound safetensors file. Messages name files by their names without folders. Tensors are not compared with the
// config yet.
absl::StatusOr<ControlNetFile> ReadControlNet(const std::string& path, const SdxlConfig& model);

// Reads it to compute in place.dtype, with the errors of ReadControlNet and LoadNetwork.
absl::StatusOr<std::unique_ptr<const LoadedControlNet>> LoadControlNet(const std::string& path, const SdxlConfig& model,
                                                                       ComputePlace place);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CONTROLNET_FILE_H_
