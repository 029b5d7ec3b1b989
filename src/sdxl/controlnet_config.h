#ifndef HOTLORA_SRC_SDXL_CONTROLNET_CONFIG_H_
#define HOTLORA_SRC_SDXL_CONTROLNET_CONFIG_H_

// Every number that shapes a ControlNet. No LibTorch here.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "src/sdxl/sdxl_config.h"

namespace hotlora {

// What a union net has beyond a ControlNet of one kind.
struct ControlTypesConfig {
  int64_t count = 0;   // control types: num_control_type
  int64_t layers = 0;  // of its transformer: num_trans_layer. num_trans_head has no effect, see control_types.h
};

struct ControlNetConfig {
  UnetConfig encoder;                       // sample_size, out_channels and up_attention are not used
  std::vector<int64_t> hint_channels;       // conditioning_embedding_out_channels, at the picture's size first
  std::optional<ControlTypesConfig> types;  // of a union net
};

// The hint channels of published nets.
inline constexpr int64_t kUsualHintChannels[] = {16, 32, 96, 256};

// How many values the parts of a net have, to find what they take in memory.
struct ControlElements {
  int64_t hint = 0;       // a picture's, embedded
  int64_t embedding = 0;  // the most at once while a picture is embedded, that picture among them
  int64_t outputs = 0;    // all of ControlResiduals, for one row
  int64_t text = 0;       // a text of one chunk as it comes, twice, and its keys and values, for one row
};

// For a net with the UNet's channels and the usual hint channels, and latents of height x width, which are `factor`
// times smaller than the picture.
ControlElements ControlElementsOf(const UnetConfig& unet, int64_t height, int64_t width, int64_t factor);

// Reads config.json of a diffusers folder, or the same beside a single file. `file` is what messages call it.
// FailedPrecondition (reason MODEL_UNSUPPORTED) lists every key that is missing, wrong, or asks for something that
// these networks do not do.
absl::StatusOr<ControlNetConfig> ParseControlNetConfig(const std::string& file, const nlohmann::json& json);

// The shape of a file's tensor by its diffusers name; nullptr if there is none.
using ShapeOf = absl::FunctionRef<const std::vector<int64_t>*(const std::string& name)>;

// The config of a file that has none beside it: attention, depths, hint channels and control types by its tensors, all
// else as in the model's UNet, heads among it. What the tensors do not tell stays empty, and their check against the
// config names it.
ControlNetConfig ControlNetConfigOf(ShapeOf shape_of, const UnetConfig& unet);

// FailedPrecondition if residuals of such a net do not fit the model's UNet, or its picture not the model's images.
// Names each number that differs.
absl::Status CheckFits(const ControlNetConfig& config, const SdxlConfig& model);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CONTROLNET_CONFIG_H_
