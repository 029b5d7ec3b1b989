#ifndef HOTLORA_SRC_PIPELINE_IMAGE_PROMPT_CALLS_H_
#define HOTLORA_SRC_PIPELINE_IMAGE_PROMPT_CALLS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/attention.h"
#include "src/pipeline/pipeline.h"

namespace hotlora {

// What the UNet sees of an image prompt, in each cross attention in the order in which they run.
struct EncodedImagePrompt {
  // [2, tokens, 2 * its width]: the negative row's, then the positive one's; [1, ...] if no step has guidance.
  std::vector<at::Tensor> keys_values;
  std::vector<at::Tensor> positive;  // [1, ...]: views of the latter
  std::vector<double> scales;
};

struct SdxlImagePrompts final : ImagePrompts {
  // Adds them to the rows of one image in a batch, from `first` on: the negative one and the positive one, or without
  // guidance the latter alone.
  void AddTo(int64_t first, bool guided, std::vector<ImageBranch>& image) const;

  std::vector<EncodedImagePrompt> prompts;
};

// All pictures through the encoder in one batch, then each input's through its net, on the encoder's device. REQUIRES:
// there is an input.
std::shared_ptr<const SdxlImagePrompts> EncodeEachImagePrompt(const ImagePromptInputs& inputs);

// Bytes that this takes, by shapes.
ImagePromptBytes BytesOfImagePrompts(const ImagePromptInputs& inputs);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_IMAGE_PROMPT_CALLS_H_
