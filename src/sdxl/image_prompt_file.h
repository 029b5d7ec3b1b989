#ifndef HOTLORA_SRC_SDXL_IMAGE_PROMPT_FILE_H_
#define HOTLORA_SRC_SDXL_IMAGE_PROMPT_FILE_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "src/sdxl/image_encoder.h"
#include "src/sdxl/image_prompt.h"
#include "src/sdxl/placed_network.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// Both read a file in memory, which outlives the result. FailedPrecondition if it holds dtypes other than F64, F32,
// F16, BF16. Tensors are not compared with the config yet.

// An IP-Adapter's file: "image_proj." and "ip_adapter.<number>.to_k_ip.weight", "to_v_ip". Errors of
// ImagePromptConfigOf.
absl::StatusOr<NetworkFile<ImagePrompt>> ReadImagePrompt(const SafetensorsFile& file, const SdxlConfig& model);

// A CLIPVisionModelWithProjection's file in transformers' layout, with the texts of config.json and, if there is one,
// preprocessor_config.json. FailedPrecondition if one of them is not a JSON object; errors of ParseImageEncoderConfig.
absl::StatusOr<NetworkFile<ImageEncoder>> ReadImageEncoder(const SafetensorsFile& file, const std::string& config,
                                                           const std::optional<std::string>& preprocessor);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_IMAGE_PROMPT_FILE_H_
