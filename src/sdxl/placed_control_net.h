#ifndef HOTLORA_SRC_SDXL_PLACED_CONTROL_NET_H_
#define HOTLORA_SRC_SDXL_PLACED_CONTROL_NET_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include <c10/core/ScalarType.h>

#include "src/sdxl/controlnet.h"
#include "src/sdxl/placed_network.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

struct PlacedControlNet final : PlacedNetwork<ControlNet> {
  using PlacedNetwork::PlacedNetwork;
};

// Checks a file in memory for the model, to compute in `dtype`. `config` is the text of its config.json, or that of
// NAME.json beside it, which messages call `config_name`. The file outlives the result. Errors of ReadControlNet and
// StageNetwork.
absl::StatusOr<StagedNetwork<ControlNet>> StageControlNet(const SafetensorsFile& file,
                                                          const std::optional<std::string>& config,
                                                          const SdxlConfig& model, c10::ScalarType dtype,
                                                          const std::string& config_name = "config.json");

// Bytes of the block of a net like the model's UNet, with attention and as many control types as published union nets
// have.
int64_t UsualControlNetBytes(const SdxlConfig& model, c10::ScalarType dtype);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_PLACED_CONTROL_NET_H_
