#ifndef HOTLORA_SRC_SDXL_PLACED_IMAGE_PROMPT_H_
#define HOTLORA_SRC_SDXL_PLACED_IMAGE_PROMPT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include <c10/core/ScalarType.h>

#include "src/sdxl/image_encoder.h"
#include "src/sdxl/image_prompt.h"
#include "src/sdxl/placed_network.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

struct PlacedImagePrompt final : PlacedNetwork<ImagePrompt> {
  using PlacedNetwork::PlacedNetwork;
};

struct PlacedImageEncoder final : PlacedNetwork<ImageEncoder> {
  using PlacedNetwork::PlacedNetwork;
};

// Check a file in memory, to compute in `dtype`. The file outlives the result. Errors of ReadImagePrompt,
// ReadImageEncoder and StageNetwork.
absl::StatusOr<StagedNetwork<ImagePrompt>> StageImagePrompt(const SafetensorsFile& file, const SdxlConfig& model,
                                                            c10::ScalarType dtype);
absl::StatusOr<StagedNetwork<ImageEncoder>> StageImageEncoder(const SafetensorsFile& file, const std::string& config,
                                                              const std::optional<std::string>& preprocessor,
                                                              c10::ScalarType dtype);

// Bytes of the block of an image prompt of the larger kind, "plus", as large as published ones for SDXL.
int64_t UsualImagePromptBytes(const SdxlConfig& model, c10::ScalarType dtype);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_PLACED_IMAGE_PROMPT_H_
