#include "src/sdxl/placed_image_prompt.h"

#include <utility>

#include "src/base/status_macros.h"
#include "src/sdxl/image_prompt_file.h"

namespace hotlora {

absl::StatusOr<StagedNetwork<ImagePrompt>> StageImagePrompt(const SafetensorsFile& file, const SdxlConfig& model,
                                                            c10::ScalarType dtype) {
  ABSL_ASSIGN_OR_RETURN(NetworkFile<ImagePrompt> read, ReadImagePrompt(file, model));
  return StageNetwork(std::move(read), dtype);
}

absl::StatusOr<StagedNetwork<ImageEncoder>> StageImageEncoder(const SafetensorsFile& file, const std::string& config,
                                                              const std::optional<std::string>& preprocessor,
                                                              c10::ScalarType dtype) {
  ABSL_ASSIGN_OR_RETURN(NetworkFile<ImageEncoder> read, ReadImageEncoder(file, config, preprocessor));
  return StageNetwork(std::move(read), dtype);
}

int64_t UsualImagePromptBytes(const SdxlConfig& model, c10::ScalarType dtype) {
  ImagePromptConfig config;
  config.kind = ImagePromptConfig::Kind::kPlus;
  config.tokens = 16;
  config.context_width = model.unet.cross_attention_width;
  config.encoder_width = config.width = config.query_width = 1280;
  config.inner_width = 4 * config.width;
  config.layers = 4;
  config.places = CrossAttentions(model);
  return BlockBytes<ImagePrompt>(config, dtype);
}

}  // namespace hotlora
