#include "src/request/weighted_prompt.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "src/base/first_character.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

constexpr double kEmphasis = 1.1, kDeemphasis = 1.0 / kEmphasis;
constexpr absl::string_view kBreak = "BREAK";

void Multiply(std::vector<PromptPiece>& pieces, size_t first, double factor) {
  for (size_t i = first; i < pieces.size(); ++i) {
    pieces[i].weight *= factor;
  }
}

// --- Characters, by Unicode's categories. Bytes that are not UTF-8 are letters: the tokenizer refuses them later.

struct Character {
  utf8proc_int32_t code = -1;  // -1: not UTF-8
  size_t bytes = 1;
};

// REQUIRES: `at` is before the text's end.
Character CharacterAt(absl::string_view text, size_t at) {
  Character character;
  const auto length = FirstCharacter(text.substr(at), &character.code);
  character.bytes = length > 0 ? static_cast<size_t>(length) : 1;
  return character;
}

// The character that ends before `at`. REQUIRES: `at` is above 0.
Character CharacterBefore(absl::string_view text, size_t at) {
  constexpr size_t kLongest = 4;
  for (size_t bytes = 1; bytes <= std::min(kLongest, at); ++bytes) {
    const Character character = CharacterAt(text.substr(0, at), at - bytes);
    if (character.code >= 0 && character.bytes == bytes) {
      return character;
    }
  }
  return {};
}

bool IsSpace(Character character) {
  const utf8proc_int32_t c = character.code;
  if ((c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F) || c == 0x85) {
    return true;
  }
  const utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

bool IsWord(Character character) {
  switch (utf8proc_category(character.code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    default:
      return character.code == '_' || character.code < 0;
  }
}

bool IsDigit(Character character) { return utf8proc_category(character.code) == UTF8PROC_CATEGORY_ND; }

// 0 to 9. Unicode has the digits of each script in a row; the mathematical ones are five such rows.
char DigitOf(Character digit) {
  int place = 0;
  while (utf8proc_category(digit.code - place - 1) == UTF8PROC_CATEGORY_ND) {
    ++place;
  }
  return static_cast<char>('0' + place % 10);
}

absl::string_view StripSpace(absl::string_view text, bool leading) {
  while (!text.empty()) {
    const Character character = leading ? CharacterAt(text, 0) : CharacterBefore(text, text.size());
    if (!IsSpace(character)) {
      break;
    }
    if (leading) {
      text.remove_prefix(character.bytes);
    } else {
      text.remove_suffix(character.bytes);
    }
  }
  return text;
}

// Whether a word would go on across this place.
bool IsInsideWord(absl::string_view text, size_t at) {
  return at > 0 && at < text.size() && IsWord(CharacterBefore(text, at)) && IsWord(CharacterAt(text, at));
}

// --- Weights

// ":1.3)" at the beginning of a text.
struct WeightToken {
  size_t bytes = 0;    // 0: there is none
  std::string number;  // in ASCII: a sign or none, then digits and dots
};

WeightToken TakeWeightToken(absl::string_view text) {
  WeightToken token;
  absl::string_view rest = StripSpace(text.substr(1), /*leading=*/true);
  if (!rest.empty() && (rest[0] == '+' || rest[0] == '-')) {
    token.number = rest[0];
    rest.remove_prefix(1);
  }
  const size_t sign = token.number.size();
  while (!rest.empty()) {
    const Character character = CharacterAt(rest, 0);
    if (character.code != '.' && !IsDigit(character)) {
      break;
    }
    token.number += character.code == '.' ? '.' : DigitOf(character);
    rest.remove_prefix(character.bytes);
  }
  const bool any = token.number.size() > sign;
  rest = StripSpace(rest, /*leading=*/true);
  if (any && absl::ConsumePrefix(&rest, ")")) {
    token.bytes = text.size() - rest.size();
  }
  return token;
}

absl::StatusOr<double> NumberOf(absl::string_view number) {
  double value = 0.0;
  absl::string_view plain = number;
  absl::ConsumePrefix(&plain, "+");
  if (!absl::SimpleAtod(plain, &value)) {
    return absl::InvalidArgumentError(
        absl::StrCat("has the weight \"", number.substr(0, 40), "\", which is not a number"));
  }
  return value;
}

// --- The parser: what is open, and the pieces so far.
class EmphasisParser {
 public:
  explicit EmphasisParser(bool breaks) : breaks_(breaks) {}

  absl::Status Parse(absl::string_view text) {
    while (!text.empty()) {
      const char c = text[0];
      size_t taken = 1;
      if (c == '\\') {
        taken = text.size() > 1 && absl::StrContains("()[]\\", text[1]) ? 2 : 1;
        absl::StrAppend(&current_, text.substr(1, taken - 1));
      } else if (c == '(' || c == '[') {
        FinishPiece();
        (c == '(' ? round_ : square_).push_back(pieces_.size());
      } else if (c == ':') {
        const WeightToken token = TakeWeightToken(text);
        taken = std::max<size_t>(token.bytes, 1);
        if (token.bytes > 0 && !round_.empty()) {
          ABSL_ASSIGN_OR_RETURN(const double weight, NumberOf(token.number));
          Close(round_, weight);
        } else {
          absl::StrAppend(&current_, text.substr(0, taken));
        }
      } else if (c == ')' && !round_.empty()) {
        Close(round_, kEmphasis);
      } else if (c == ']' && !square_.empty()) {
        Close(square_, kDeemphasis);
      } else if (c == ')' || c == ']') {
        current_ += c;
      } else {
        taken = std::min(text.find_first_of("\\()[]:"), text.size());
        AddText(text.substr(0, taken));
      }
      text.remove_prefix(taken);
    }
    FinishPiece();
    return absl::OkStatus();
  }

  std::vector<PromptPiece> Take() && {
    for (const size_t first : round_) {
      Multiply(pieces_, first, kEmphasis);
    }
    for (const size_t first : square_) {
      Multiply(pieces_, first, kDeemphasis);
    }
    std::vector<PromptPiece> merged;
    for (PromptPiece& piece : pieces_) {
      if (!piece.is_break && !merged.empty() && !merged.back().is_break && merged.back().weight == piece.weight) {
        merged.back().text += piece.text;
      } else {
        merged.push_back(std::move(piece));
      }
    }
    return merged;
  }

 private:
  void FinishPiece() {
    if (current_.empty()) {
      return;  // thousands of brackets without text would take time in the square of their number
    }
    pieces_.push_back({current_, 1.0, false});
    current_.clear();
  }

  void AddText(absl::string_view text) {
    const std::vector<std::string> parts = breaks_ ? SplitAtBreaks(text) : std::vector<std::string>{std::string(text)};
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i > 0) {
        FinishPiece();
        pieces_.push_back({"", 1.0, true});
      }
      current_ += parts[i];
    }
  }

  void Close(std::vector<size_t>& open, double factor) {
    FinishPiece();
    Multiply(pieces_, open.back(), factor);
    open.pop_back();
  }

  const bool breaks_;
  std::vector<PromptPiece> pieces_;
  std::vector<size_t> round_, square_;  // of each open bracket, the first piece inside it
  std::string current_;                 // text that is in no piece yet
};

bool StandsAt(absl::string_view text, size_t at, absl::string_view word) {
  return absl::StartsWithIgnoreCase(text.substr(at), word) && !IsInsideWord(text, at) &&
         !IsInsideWord(text, at + word.size());
}

}  // namespace

absl::StatusOr<std::vector<PromptPiece>> ParseEmphasis(absl::string_view text, bool breaks) {
  EmphasisParser parser(breaks);
  ABSL_RETURN_IF_ERROR(parser.Parse(text));
  std::vector<PromptPiece> pieces = std::move(parser).Take();
  for (const PromptPiece& piece : pieces) {
    if (!piece.is_break && !(std::abs(piece.weight) <= kMaxEmphasis)) {
      return absl::InvalidArgumentError(
          absl::StrCat("has text of the weight ", piece.weight, "; allowed are -", kMaxEmphasis, " to ", kMaxEmphasis));
    }
  }
  return pieces;
}

std::vector<std::string> SplitAtBreaks(absl::string_view text) {
  std::vector<std::string> parts;
  absl::string_view rest = text;
  for (size_t at = rest.find(kBreak); at != absl::string_view::npos; at = rest.find(kBreak, at)) {
    const size_t end = at + kBreak.size();
    if (IsInsideWord(rest, at) || IsInsideWord(rest, end)) {
      at = end;
      continue;
    }
    parts.emplace_back(StripSpace(rest.substr(0, at), /*leading=*/false));
    rest = StripSpace(rest.substr(end), /*leading=*/true);
    at = 0;
  }
  parts.emplace_back(rest);
  return parts;
}

std::vector<WordPiece> SplitAtWords(absl::string_view text, const std::vector<std::string>& words) {
  std::vector<WordPiece> pieces;
  size_t begin = 0;  // of the text that is in no piece yet
  const auto finish_text = [&](size_t end) {
    if (end > begin) {
      pieces.push_back({std::string(text.substr(begin, end - begin)), std::nullopt});
    }
  };
  for (size_t at = 0; at < text.size();) {
    std::optional<size_t> longest;
    for (size_t i = 0; i < words.size(); ++i) {
      if (StandsAt(text, at, words[i]) && (!longest.has_value() || words[i].size() > words[*longest].size())) {
        longest = i;
      }
    }
    if (!longest.has_value()) {
      ++at;
      continue;
    }
    finish_text(at);
    at += words[*longest].size();
    begin = at;
    pieces.push_back({words[*longest], longest});
  }
  finish_text(text.size());
  return pieces;
}

}  // namespace hotlora
