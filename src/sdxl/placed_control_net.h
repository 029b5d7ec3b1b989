#ifndef HOTLORA_SRC_SDXL_PLACED_CONTROL_NET_H_
#define HOTLORA_SRC_SDXL_PLACED_CONTROL_NET_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "src/sdxl/controlnet.h"
#include "src/sdxl/controlnet_config.h"
#include "src/sdxl/parameter_block.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// A ControlNet whose parameters are views of one block of memory. LoRAs never change it, so it has no clean copy.
// Immutable.
struct PlacedControlNet {
  // REQUIRES: `in_block` holds the parameters of such a net in that layout.
  PlacedControlNet(ParameterLayout of_parameters, at::Tensor in_block, const ControlNetConfig& config);

  const ParameterLayout layout;
  const at::Tensor block;  // uint8, [layout.bytes], on any device
  const ControlNet network;
};

// A file that passed every check, on its way into a block.
struct StagedControlNet {
  ControlNetConfig config;
  std::shared_ptr<const ParameterStager> parameters;
};

// Checks a file in memory for the model, to compute in `dtype`. `config` is the text of its config.json, or that of
// NAME.json beside it, which messages call `config_name`. The file outlives the result. Errors of ReadControlNet, and
// FailedPrecondition
//   MODEL_UNSUPPORTED  names each tensor that is missing, surplus or wrongly shaped (found and expected)
//   INTERNAL           names each tensor with values that are not finite in `dtype`
absl::StatusOr<StagedControlNet> StageControlNet(const SafetensorsFile& file, const std::optional<std::string>& config,
                                                 const SdxlConfig& model, c10::ScalarType dtype,
                                                 const std::string& config_name = "config.json");

// Lays the net out in a block of its layout's bytes, on the CPU.
std::shared_ptr<const PlacedControlNet> PlaceControlNet(const StagedControlNet& staged, const at::Tensor& block);

// Copies the net into a block of as many bytes on any device. Does not wait for the copy.
std::shared_ptr<const PlacedControlNet> CopyControlNet(const PlacedControlNet& net, const at::Tensor& block);

// Bytes of the block of a net like the model's UNet, with attention and as many control types as published union nets
// have.
int64_t UsualControlNetBytes(const SdxlConfig& model, c10::ScalarType dtype);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_PLACED_CONTROL_NET_H_
