#ifndef HOTLORA_SRC_SDXL_WEIGHTED_PROMPT_H_
#define HOTLORA_SRC_SDXL_WEIGHTED_PROMPT_H_

// What a caller writes into a prompt beside its words: emphasis, and where a chunk ends. No LibTorch here.

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace hotlora {

// Text of one weight.
struct PromptPiece {
  std::string text;
  double weight = 1.0;

  bool operator==(const PromptPiece& other) const { return text == other.text && weight == other.weight; }
};

// The prompt as pieces, in the syntax of AUTOMATIC1111's web UI:
//
//   (text)        weight 1.1 times that around it         [text]   weight around it divided by 1.1
//   (text:1.3)    1.3 times that around it                \( \) \[ \] \\   the character itself
//
// Brackets nest. An opening bracket that is never closed counts to the end; a closing one that was never opened, and a
// colon with no number before ")", are text. Neighbours of equal weight are one piece; the empty text has no piece.
std::vector<PromptPiece> ParseEmphasis(absl::string_view text);

// The parts before, between and after each BREAK that stands as a word of its own, in capitals: one part more than
// there are BREAKs, each without the white space beside them; without BREAK, the text as it is.
std::vector<std::string> SplitAtBreaks(absl::string_view text);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_WEIGHTED_PROMPT_H_
