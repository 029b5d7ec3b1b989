#ifndef HOTLORA_SRC_REQUEST_WEIGHTED_PROMPT_H_
#define HOTLORA_SRC_REQUEST_WEIGHTED_PROMPT_H_

// What a caller writes into a prompt beside its words: emphasis, where a chunk ends, words with vectors of their own.

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hotlora {

constexpr double kMaxEmphasis = 100.0;  // of a weight's absolute value

// Text of one weight, or the place of a BREAK, which has no text.
struct PromptPiece {
  std::string text;
  double weight = 1.0;
  bool is_break = false;

  bool operator==(const PromptPiece& other) const {
    return text == other.text && weight == other.weight && is_break == other.is_break;
  }
};

// The prompt as pieces, in the syntax of AUTOMATIC1111's web UI, as its parser reads it:
//
//   (text)        weight 1.1 times that around it         [text]   weight around it divided by 1.1
//   (text:1.3)    1.3 times that around it                \( \) \[ \] \\   the character itself
//
// Brackets nest, and round ones do not care about square ones: in "(a [b) c]" both pairs count. An opening bracket that
// is never closed counts to the end; a closing one that was never opened is text. A weight is digits and dots with a
// sign, white space around it; ":1e3)", ":b)" and ":1.3" without a bracket are text. A backslash before anything else
// vanishes. With `breaks`, each BREAK (see SplitAtBreaks) is a piece of its own; else it is text. Neighbours of equal
// weight are one piece; empty text has no piece.
//
// InvalidArgument if that parser fails: a weight that is not a number, as in "(a:1.2.3)"; and if text has a weight,
// with that of all brackets around it, beyond kMaxEmphasis. The message follows a field's name.
absl::StatusOr<std::vector<PromptPiece>> ParseEmphasis(absl::string_view text, bool breaks);

// The parts before, between and after each BREAK that stands as a word of its own, in capitals: one part more than
// there are BREAKs, each without the white space beside them; without BREAK, the text as it is. Words are of letters
// and numbers of any script, and "_".
std::vector<std::string> SplitAtBreaks(absl::string_view text);

// A stretch of text, or one of some words.
struct WordPiece {
  std::string text;
  std::optional<size_t> word;  // its index

  bool operator==(const WordPiece& other) const { return text == other.text && word == other.word; }
};

// The text with each of `words` as a piece of its own where it stands in the text in any (ASCII) case, and not as part
// of a longer word (of letters and numbers of any script, and "_"); of several at one place the longest. Pieces of text
// are not empty. REQUIRES: no word is empty.
std::vector<WordPiece> SplitAtWords(absl::string_view text, const std::vector<std::string>& words);

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_WEIGHTED_PROMPT_H_
