#ifndef HOTLORA_SRC_PIPELINE_PNG_PARAMETERS_H_
#define HOTLORA_SRC_PIPELINE_PNG_PARAMETERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "src/request/image_job.h"
#include "src/request/model_info.h"

namespace hotlora {

// An embedding as an image's parameters name it.
struct NamedEmbedding {
  std::string token;
  std::string content_sha256;
};

// An adapter as an image's parameters name it.
struct NamedAdapter {
  AdapterUse use;
  std::string content_sha256;
};

// A ControlNet as an image's parameters name it.
struct NamedControl {
  const ControlUse* use;  // of the job
  std::string content_sha256;
};

// An image prompt as an image's parameters name it.
struct NamedImagePrompt {
  const ImagePromptUse* use;  // of the job
  std::string content_sha256;
};

// The files that took part beside the model's.
struct ImageSources {
  std::vector<NamedAdapter> adapters;
  std::vector<NamedEmbedding> embeddings;
  std::vector<NamedControl> controls;
  std::vector<NamedImagePrompt> image_prompts;
};

// What made an image, in the form of AUTOMATIC1111's web UI, which other tools read from a PNG's "parameters" chunk:
//
//   a red circle <lora:outline:1>
//   Negative prompt: text
//   Steps: 20, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 128x128, Model hash: 0123456789, Model: demo,
//   Lora hashes: "outline: 0123456789ab", TI hashes: "ink: 0123456789ab", Version: hotlora 0.1.0          (one line)
//
// Each adapter stands behind the prompt as <lora:NAME:WEIGHT>, or with two weights as <lora:NAME:TEXT_ENCODER:UNET>;
// an embedding has its hash under the token that stands for it in the prompt. Adapters that differ by range or block
// stand in `Lora ranges: "outline: 0 to 0.5, ink: 0.5 to 1"` and `Lora blocks: "outline: down_blocks=0.3
// mid_block=1"`. ControlNets stand in `ControlNet 0: "Model: canny [0123456789ab], Weight: 0.8, Guidance Start: 0,
// Guidance End: 0.6"`, with their `Control Type` if they have one; image prompts in `Image prompt 0: "Model: style
// [0123456789ab], Weight: 0.6, Images: 1"`, with `Blocks: down_blocks=0.3 mid_block=1` if they have some. Values with
// a comma, a colon, a quote or a line break are quoted as JSON. What has its default value and is not part of that
// form is left out. Hashes are the first 10 (model) and 12 digits of our SHA-256 of the whole file. The same request
// has the same text: no times, no ids. `seed` is the image's own.
std::string ImageParameters(const ImageJob& job, uint64_t seed, const ModelInfo& model, const ImageSources& sources);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_PNG_PARAMETERS_H_
