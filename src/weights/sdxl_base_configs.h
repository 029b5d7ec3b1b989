#ifndef HOTLORA_SRC_WEIGHTS_SDXL_BASE_CONFIGS_H_
#define HOTLORA_SRC_WEIGHTS_SDXL_BASE_CONFIGS_H_

#include "src/weights/checkpoint_configs.h"

namespace hotlora {

// The configs of stabilityai/stable-diffusion-xl-base-1.0, as far as they shape what runs here: those of nearly every
// single-file checkpoint. Tokenizer folders are empty.
CheckpointConfigs SdxlBaseConfigs();

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_SDXL_BASE_CONFIGS_H_
