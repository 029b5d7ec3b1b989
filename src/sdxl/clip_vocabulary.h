#ifndef HOTLORA_SRC_SDXL_CLIP_VOCABULARY_H_
#define HOTLORA_SRC_SDXL_CLIP_VOCABULARY_H_

// CLIP's vocab.json and merges.txt, a part of the program: single-file checkpoints hold no tokenizer.

#include "absl/strings/string_view.h"

namespace hotlora {

// Both live as long as the program.
absl::string_view ClipVocabularyJson();
absl::string_view ClipMergesText();

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CLIP_VOCABULARY_H_
