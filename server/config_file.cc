#include "server/config_file.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "src/base/bounded_read.h"

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

}  // namespace

absl::Status CheckTomlText(absl::string_view text) {
  absl::ConsumePrefix(&text, "\xef\xbb\xbf");  // a byte order mark
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
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line, ": a key has more than ", kMaxTomlKeyParts, " parts"));
    }
    for (; i < end; ++i) {
      if (!may_be_unicode && !absl::ascii_isascii(static_cast<unsigned char>(text[i]))) {
        return absl::InvalidArgumentError(absl::StrCat(
            "line ", line, ": a character outside ASCII is allowed only in a comment and in a string of one line"));
      }
      line += text[i] == '\n' ? 1 : 0;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<toml::table> ReadTomlFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxBytes);
  if (!text.ok()) {
    return absl::InvalidArgumentError(text.status().message());
  }
  if (const absl::Status status = CheckTomlText(*text); !status.ok()) {
    return status;
  }
  try {
    return toml::parse(*text, path);
  } catch (const toml::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", error.source().begin.line, ": ", std::string(error.description())));
  }
}

}  // namespace hotlora
