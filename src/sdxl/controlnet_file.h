#ifndef HOTLORA_SRC_SDXL_CONTROLNET_FILE_H_
#define HOTLORA_SRC_SDXL_CONTROLNET_FILE_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "src/sdxl/controlnet.h"
#include "src/sdxl/placed_network.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// Reads a file in memory, which outlives the result, as a ControlNet for the model. Its tensors have diffusers' names,
// or SGM's (input_blocks., zero_convs., input_hint_block.) with or without "control_model." before them. `config` is
// the text of its config.json: that of the folder in which it lies, or of NAME.json beside NAME.safetensors; messages
// call it `config_name`. Without it the config is that of ControlNetConfigOf.
//
// FailedPrecondition (mostly reason MODEL_UNSUPPORTED): the file is of another kind (a ControlNet for SD 1 or 2, a
// control LoRA, a UNet, an adapter), does not fit the model, or holds dtypes other than F64, F32, F16, BF16. Tensors
// are not compared with the config yet.
absl::StatusOr<NetworkFile<ControlNet>> ReadControlNet(const SafetensorsFile& file,
                                                       const std::optional<std::string>& config,
                                                       const SdxlConfig& model,
                                                       const std::string& config_name = "config.json");

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CONTROLNET_FILE_H_
