#include "src/sdxl/weighted_prompt.h"

#include <cmath>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

namespace hotlora {
namespace {

constexpr double kEmphasis = 1.1;
constexpr absl::string_view kBreak = "BREAK";

// A bracket that is open: the character, and the first of the pieces inside it.
struct OpenBracket {
  char character;
  size_t first_piece;
};

void Multiply(std::vector<PromptPiece>& pieces, size_t first, double factor) {
  for (size_t i = first; i < pieces.size(); ++i) {
    pieces[i].weight *= factor;
  }
}

// Takes ":1.3" off the end of the text before a closing parenthesis; 1.1 where there is none.
double TakeWeight(std::string& text) {
  const size_t colon = text.rfind(':');
  double weight = 0.0;
  if (colon == std::string::npos || !absl::SimpleAtod(text.substr(colon + 1), &weight) || !std::isfinite(weight)) {
    return kEmphasis;
  }
  text.resize(colon);
  return weight;
}

// Whether the byte belongs to a word; those of characters beyond ASCII do.
bool IsWordByte(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return absl::ascii_isalnum(byte) || c == '_' || byte >= 0x80;
}

// Whether a word would go on across this place.
bool IsInsideWord(absl::string_view text, size_t at) {
  return at > 0 && at < text.size() && IsWordByte(text[at - 1]) && IsWordByte(text[at]);
}

bool StandsAt(absl::string_view text, size_t at, absl::string_view word) {
  return absl::StartsWithIgnoreCase(text.substr(at), word) && !IsInsideWord(text, at) &&
         !IsInsideWord(text, at + word.size());
}

}  // namespace

std::vector<PromptPiece> ParseEmphasis(absl::string_view text) {
  std::vector<PromptPiece> pieces;
  std::vector<OpenBracket> open;
  std::string current;
  const auto finish_piece = [&] {
    pieces.push_back({current, 1.0});
    current.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && i + 1 < text.size() && absl::StrContains("()[]\\", text[i + 1])) {
      current += text[++i];
    } else if (c == '(' || c == '[') {
      finish_piece();
      open.push_back({c, pieces.size()});
    } else if ((c == ')' || c == ']') && !open.empty() && open.back().character == (c == ')' ? '(' : '[')) {
      const double factor = c == ')' ? TakeWeight(current) : 1.0 / kEmphasis;
      finish_piece();
      Multiply(pieces, open.back().first_piece, factor);
      open.pop_back();
    } else {
      current += c;
    }
  }
  finish_piece();
  for (const OpenBracket& bracket : open) {
    Multiply(pieces, bracket.first_piece, bracket.character == '(' ? kEmphasis : 1.0 / kEmphasis);
  }
  std::vector<PromptPiece> merged;
  for (PromptPiece& piece : pieces) {
    if (!merged.empty() && merged.back().weight == piece.weight) {
      merged.back().text += piece.text;
    } else if (!piece.text.empty()) {
      merged.push_back(std::move(piece));
    }
  }
  return merged;
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
    parts.emplace_back(absl::StripTrailingAsciiWhitespace(rest.substr(0, at)));
    rest = absl::StripLeadingAsciiWhitespace(rest.substr(end));
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
