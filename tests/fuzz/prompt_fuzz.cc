// The texts of a prompt: tags, emphasis, breaks, words. Any text.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "src/request/lora_tags.h"
#include "src/request/weighted_prompt.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  (void)hotlora::TakeLoraTags(text);
  for (const bool breaks : {false, true}) {
    const auto pieces = hotlora::ParseEmphasis(text, breaks);
    if (!pieces.ok()) {
      continue;
    }
    size_t bytes = 0;
    for (const hotlora::PromptPiece& piece : *pieces) {
      bytes += piece.text.size();
      if (piece.is_break != (piece.text.empty())) {
        std::abort();  // a piece is a BREAK or text
      }
    }
    if (bytes > size) {
      std::abort();
    }
  }
  (void)hotlora::SplitAtBreaks(text);
  (void)hotlora::SplitAtWords(text, {"ink", "<s0>"});
  return 0;
}
