#ifndef HOTLORA_SRC_SDXL_IMAGE_ENCODER_CONFIG_H_
#define HOTLORA_SRC_SDXL_IMAGE_ENCODER_CONFIG_H_

// Every number that shapes an image encoder and what it sees of a picture. No LibTorch here.

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "src/image/middle_square.h"
#include "src/sdxl/sdxl_config.h"

namespace hotlora {

struct ImageEncoderConfig : ClipConfig {
  int64_t image_size = 0;  // of the square that it sees, in pixels
  int64_t patch = 0;       // patch_size: pixels of a token on a side
  int64_t projection = 0;  // projection_dim: width of its embeddings
  // How a picture becomes that square: the shorter side is brought to `edge`, then the middle is cut out. Then pixels,
  // from 0 to 255, times `rescale`, minus `mean`, over `std` of each channel.
  int64_t edge = 0;
  double rescale = 1.0 / 255.0;
  std::array<double, 3> mean = {0.48145466, 0.4578275, 0.40821073};  // CLIP's own
  std::array<double, 3> std = {0.26862954, 0.26130258, 0.27577711};

  MiddleSquare square() const { return {static_cast<uint32_t>(edge), static_cast<uint32_t>(image_size)}; }

  // A class token, then one for each patch.
  int64_t tokens() const { return (image_size / patch) * (image_size / patch) + 1; }
};

// Reads config.json of a CLIPVisionModelWithProjection and, unless it is null, preprocessor_config.json.
// FailedPrecondition (reason MODEL_UNSUPPORTED) lists every key that is missing or wrong, or that asks for something
// this encoder does not do.
absl::StatusOr<ImageEncoderConfig> ParseImageEncoderConfig(const nlohmann::json& config,
                                                           const nlohmann::json& preprocessor);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_IMAGE_ENCODER_CONFIG_H_
