#ifndef HOTLORA_SRC_SDXL_IMAGE_PROMPT_CONFIG_H_
#define HOTLORA_SRC_SDXL_IMAGE_PROMPT_CONFIG_H_

// Every number that shapes an image prompt (IP-Adapter). No LibTorch here.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "src/sdxl/sdxl_config.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// One cross attention of the UNet.
struct CrossAttentionPlace {
  std::string path;    // its diffusers name, "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
  int64_t width = 0;   // of its queries
  int64_t number = 0;  // "ip_adapter.<number>." in the files of image prompts
};

// All cross attentions, in the order in which they run: down blocks, middle, up blocks. Files number them with the
// middle last, and count self-attentions too, so their numbers are odd.
std::vector<CrossAttentionPlace> CrossAttentions(const SdxlConfig& model);

struct ImagePromptConfig {
  // How a picture becomes tokens: its embedding through one projection, or the encoder's tokens through a resampler
  // ("plus").
  enum class Kind { kStandard, kPlus };

  Kind kind = Kind::kStandard;
  int64_t tokens = 0;         // that a picture becomes
  int64_t context_width = 0;  // of each: the UNet's cross_attention_dim
  int64_t encoder_width = 0;  // of what it takes of the encoder: of its embedding, or of its tokens
  // A resampler has these too: its own width, that of its queries, and that of its feed-forward parts.
  int64_t width = 0, query_width = 0, inner_width = 0, layers = 0;
  std::vector<CrossAttentionPlace> places;  // CrossAttentions() of the model
};

// Reads the config off a file's tensors, as image prompts have no other. FailedPrecondition (reason MODEL_UNSUPPORTED)
// if they are of another kind, by name, or do not fit the model.
absl::StatusOr<ImagePromptConfig> ImagePromptConfigOf(const SafetensorsFile& header, const SdxlConfig& model);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_IMAGE_PROMPT_CONFIG_H_
