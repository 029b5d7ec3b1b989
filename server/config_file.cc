#include "server/config_file.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

#include "src/base/bounded_read.h"
#include "src/base/first_character.h"
#include "src/base/invalid_argument.h"

namespace hotlora {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

// The index after the string that begins at `begin`, or the text's end if it is not closed. Up to two quotes before the
// closing three are the string's.
size_t EndOfString(absl::string_view text, size_t begin) {
  const char quote = text[begin];
  const bool long_one = absl::StartsWith(text.substr(begin), std::string(3, quote));
  const std::string end(long_one ? 3 : 1, quote);
  for (size_t i = begin + end.size(); i < text.size(); ++i) {
    if (text[i] == '\\' && quote == '"') {
      ++i;
    } else if (absl::StartsWith(text.substr(i), end)) {
      const size_t after = i + end.size();
      const size_t more =
          long_one ? std::min<size_t>(std::min(text.find_first_not_of(quote, after), text.size()) - after, 2) : 0;
      return after + more;
    } else if (text[i] == '\n' && !long_one) {
      return i;
    }
  }
  return text.size();
}

bool IsAscii(absl::string_view text) { return std::all_of(text.begin(), text.end(), absl::ascii_isascii); }

// A comment, or a string of one line with its quotes, in ASCII: in comments other characters become '?', in strings
// escapes. Only strings in double quotes have escapes, so a string in single quotes is rewritten as one.
absl::StatusOr<std::string> InAscii(absl::string_view token) {
  const char kind = token[0];
  const bool literal = kind == '\'';
  const bool closed_literal = literal && token.size() > 1 && token.back() == kind;
  std::string ascii(1, literal ? '"' : kind);
  bool escaped = false;
  for (size_t i = 1; i < token.size() - (closed_literal ? 1 : 0);) {
    utf8proc_int32_t c = 0;
    const auto length = FirstCharacter(token.substr(i), &c);
    if (length < 1) {
      return absl::InvalidArgumentError("the text is not UTF-8");
    }
    if (length > 1 && escaped) {
      return absl::InvalidArgumentError("a backslash stands before a character outside ASCII");
    }
    if (length == 1) {
      absl::StrAppend(&ascii, literal && (c == '\\' || c == '"') ? "\\" : "", token.substr(i, 1));
    } else if (kind == '#') {
      ascii += '?';
    } else {
      absl::StrAppendFormat(&ascii, "\\U%08X", c);
    }
    escaped = kind == '"' && c == '\\' && !escaped;
    i += length;
  }
  return ascii + (closed_literal ? "\"" : "");
}

}  // namespace

absl::StatusOr<std::string> AsciiToml(absl::string_view text) {
  absl::ConsumePrefix(&text, "\xef\xbb\xbf");  // a byte order mark
  std::string ascii;
  int line = 1, parts = 1;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    size_t end = i + 1;
    bool may_be_unicode = false;
    if (c == '#') {
      end = std::min(text.find('\n', i), text.size());
      may_be_unicode = true;
    } else if (c == '"' || c == '\'') {
      end = EndOfString(text, i);
      may_be_unicode = !absl::StartsWith(text.substr(i), std::string(3, c));
    } else if (c == '.') {
      ++parts;
    } else if (absl::StrContains("\n=,[]{}", c)) {
      parts = 1;
    }
    if (parts > kMaxTomlKeyParts) {
      return InvalidArgument("line ", line, ": a key has more than ", kMaxTomlKeyParts, " parts");
    }
    const absl::string_view token = text.substr(i, end - i);
    if (IsAscii(token)) {
      absl::StrAppend(&ascii, token);
    } else if (may_be_unicode) {
      const absl::StatusOr<std::string> rewritten = InAscii(token);
      if (!rewritten.ok()) {
        return InvalidArgument("line ", line, ": ", rewritten.status().message());
      }
      absl::StrAppend(&ascii, *rewritten);
    } else {
      const auto before = std::find_if_not(token.begin(), token.end(), absl::ascii_isascii);
      return InvalidArgument("line ", line + std::count(token.begin(), before, '\n'), ": a character outside ASCII is ",
                             "allowed only in a comment and in a string of one line");
    }
    line += static_cast<int>(std::count(token.begin(), token.end(), '\n'));
    i = end;
  }
  return ascii;
}

absl::StatusOr<toml::table> ReadTomlFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxBytes);
  if (!text.ok()) {
    return absl::InvalidArgumentError(text.status().message());
  }
  const absl::StatusOr<std::string> ascii = AsciiToml(*text);
  if (!ascii.ok()) {
    return ascii.status();
  }
  try {
    return toml::parse(*ascii, path);
  } catch (const toml::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", error.source().begin.line, ": ", std::string(error.description())));
  }
}

}  // namespace hotlora
