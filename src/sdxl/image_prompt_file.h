#ifndef HOTLORA_SRC_SDXL_IMAGE_PROMPT_FILE_H_
#define HOTLORA_SRC_SDXL_IMAGE_PROMPT_FILE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "src/sdxl/image_encoder.h"
#include "src/sdxl/image_prompt.h"
#include "src/sdxl/loaded_network.h"

namespace hotlora {

using ImagePromptFile = NetworkFile<ImagePromptConfig>;
using LoadedImagePrompt = LoadedNetwork<ImagePrompt>;

// Reads an IP-Adapter's safetensors file: "image_proj." and "ip_adapter.<number>.to_k_ip.weight", "to_v_ip". Errors of
// ImagePromptConfigOf; FailedPrecondition if it holds dtypes other than F64, F32, F16, BF16; DataLoss if it is not a
// sound safetensors file. Messages name the file without its folder. Tensors are not compared with the config yet.
absl::StatusOr<ImagePromptFile> ReadImagePrompt(const std::string& path, const SdxlConfig& model);

// Reads it to compute in place.dtype, with the errors of ReadImagePrompt and LoadNetwork.
absl::StatusOr<std::unique_ptr<const LoadedImagePrompt>> LoadImagePrompt(const std::string& path,
                                                                         const SdxlConfig& model, ComputePlace place);

using ImageEncoderFile = NetworkFile<ImageEncoderConfig>;
using LoadedImageEncoder = LoadedNetwork<ImageEncoder>;

// Reads a CLIPVisionModelWithProjection in transformers' layout: config.json, preprocessor_config.json if there is one,
// and `model` in the spellings of ReadCheckpoint. Errors of ParseImageEncoderConfig and ReadCheckpoint.
absl::StatusOr<ImageEncoderFile> ReadImageEncoder(const std::string& folder);

// Reads it to compute in place.dtype, with the errors of ReadImageEncoder and LoadNetwork.
absl::StatusOr<std::unique_ptr<const LoadedImageEncoder>> LoadImageEncoder(const std::string& folder,
                                                                           ComputePlace place);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_IMAGE_PROMPT_FILE_H_
