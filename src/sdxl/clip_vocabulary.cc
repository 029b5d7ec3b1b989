#include "src/sdxl/clip_vocabulary.h"

// The assembler takes the files in as they are: 1.5 MB as an array would take the compiler seconds and a gigabyte.
// HOTLORA_CLIP_FOLDER is set in CMakeLists.txt, which also makes this file depend on them.
asm(R"(
  .pushsection .rodata
  .global hotlora_clip_vocabulary, hotlora_clip_vocabulary_end, hotlora_clip_merges, hotlora_clip_merges_end
hotlora_clip_vocabulary:
  .incbin ")" HOTLORA_CLIP_FOLDER R"(/vocab.json"
hotlora_clip_vocabulary_end:
hotlora_clip_merges:
  .incbin ")" HOTLORA_CLIP_FOLDER R"(/merges.txt"
hotlora_clip_merges_end:
  .popsection
)");

extern "C" {
extern const char hotlora_clip_vocabulary[], hotlora_clip_vocabulary_end[];
extern const char hotlora_clip_merges[], hotlora_clip_merges_end[];
}

namespace hotlora {

absl::string_view ClipVocabularyJson() {
  return {hotlora_clip_vocabulary, static_cast<size_t>(hotlora_clip_vocabulary_end - hotlora_clip_vocabulary)};
}

absl::string_view ClipMergesText() {
  return {hotlora_clip_merges, static_cast<size_t>(hotlora_clip_merges_end - hotlora_clip_merges)};
}

}  // namespace hotlora
