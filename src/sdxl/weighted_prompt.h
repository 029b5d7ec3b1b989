#ifndef HOTLORA_SRC_SDXL_WEIGHTED_PROMPT_H_
#define HOTLORA_SRC_SDXL_WEIGHTED_PROMPT_H_

// What a caller writes into a prompt beside its words: emphasis, where a chunk ends, words with vectors of their own.
// No LibTorch here.

#include <cstddef>
#include <optional>
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

// A stretch of text, or one of some words.
struct WordPiece {
  std::string text;
  std::optional<size_t> word;  // its index

  bool operator==(const WordPiece& other) const { return text == other.text && word == other.word; }
};

// The text with each of `words` as a piece of its own where it stands in the text in any (ASCII) case, and not as part
// of a longer word; of several at one place the longest. Pieces of text are not empty. REQUIRES: no word is empty.
std::vector<WordPiece> SplitAtWords(absl::string_view text, const std::vector<std::string>& words);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_WEIGHTED_PROMPT_H_
