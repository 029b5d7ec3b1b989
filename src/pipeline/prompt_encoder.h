#ifndef HOTLORA_SRC_PIPELINE_PROMPT_ENCODER_H_
#define HOTLORA_SRC_PIPELINE_PROMPT_ENCODER_H_

#include "absl/status/statusor.h"
#include <ATen/core/Tensor.h>

#include "src/nn/side_branch.h"
#include "src/request/image_job.h"
#include "src/sdxl/sdxl_model.h"

namespace hotlora {

// One side (positive or negative) of a prompt as the UNet takes it, in the network's dtype on its device.
struct TextSide {
  at::Tensor hidden;  // [1, 77 x chunks, cross-attention width]
  at::Tensor pooled;  // [1, pooled width]
};

struct EncodedPrompts {
  TextSide positive;
  TextSide negative;  // of as many chunks; undefined tensors if it was not wanted
};

// Encodes a request's prompts with both text encoders, the positive and the negative ones as one batch. As diffusers
// does: one chunk of 75 tokens between begin and end, the rest of the text cut off. Only if the request says so:
//
//   long_prompts   the text in as many chunks as it takes, each encoded alone, joined along the tokens; BREAK ends a
//                  chunk. All four texts get as many chunks as the longest, by empty ones. Pooled is the first chunk's.
//   weighted       each token's hidden state times its weight (weighted_prompt.h), without restoring the mean ("No
//                  norm", which suits SDXL). Pieces of one weight are tokenized one by one. Pooled knows no weights.
//
// If a text says the token of one of the embeddings, as a word of its own and in any case, its vectors stand in
// place of token embeddings; the text before and behind is tokenized by itself. In long prompts they are not torn
// apart: if a chunk has no room for all of them, they begin the next.
//
// `side`    adapters beside the weights, for all of it; nullptr: none
// Errors   InvalidArgument: PROMPT_TOO_LONG beyond kMaxChunks; may throw c10::Error
// Source   AUTOMATIC1111's web UI, "Prompt editing" and "Emphasis" of its wiki
inline constexpr size_t kMaxChunks = 16;
absl::StatusOr<EncodedPrompts> EncodePrompts(const SdxlModel& model, const Prompts& prompts, bool negative,
                                             const SideTable* side = nullptr);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_PROMPT_ENCODER_H_
