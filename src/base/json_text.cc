#include "src/base/json_text.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "src/base/status_macros.h"

namespace hotlora {
namespace {

// The longest first: "-Infinity" contains "Infinity".
constexpr absl::string_view kPythonNumbers[] = {"-Infinity", "Infinity", "NaN"};

// The index after the string that begins at `begin`, or the end of the text if the string is not closed.
size_t EndOfString(absl::string_view text, size_t begin) {
  for (size_t i = begin + 1; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      return i + 1;
    }
  }
  return text.size();
}

// What Python reads a number beyond a double's range as; empty if it is within.
absl::string_view InfinityOf(absl::string_view number) {
  constexpr size_t kShort = 300;  // digits without an exponent that are always within
  double value = 0.0;
  if ((number.size() < kShort && number.find_first_of("eE") == absl::string_view::npos) ||
      !absl::SimpleAtod(number, &value) || !std::isinf(value)) {
    return {};
  }
  return value < 0 ? kPythonNumbers[0] : kPythonNumbers[1];
}

struct Number {
  size_t bytes = 0;
  absl::string_view name;  // of kPythonNumbers; empty if the number is JSON's and a double
};

// The number that begins at `position`, or one letter of something else.
Number NumberAt(absl::string_view text, size_t position) {
  text.remove_prefix(position);
  for (const absl::string_view name : kPythonNumbers) {
    if (absl::StartsWith(text, name)) {
      return {name.size(), name};
    }
  }
  const size_t bytes = std::max<size_t>(std::min(text.find_first_not_of("0123456789+-.eE"), text.size()), 1);
  return {bytes, InfinityOf(text.substr(0, bytes))};
}

// A surrogate escape such as \ud800 that begins at `position`: its code unit; 0 if none begins there.
uint32_t SurrogateAt(absl::string_view text, size_t position) {
  uint32_t unit = 0;
  const absl::string_view escape = text.substr(std::min(position, text.size()), 6);
  if (escape.size() < 6 || escape[0] != '\\' || escape[1] != 'u' || !absl::SimpleHexAtoi(escape.substr(2), &unit)) {
    return 0;
  }
  return unit >= 0xD800 && unit <= 0xDFFF ? unit : 0;
}

// Appends a string. Half a surrogate pair, which Python writes for a byte that is not UTF-8, becomes U+FFFD.
void AppendString(absl::string_view string, std::string& quoted) {
  while (!string.empty()) {
    const size_t plain = std::min(string.find('\\'), string.size());
    quoted.append(string.data(), plain);
    string.remove_prefix(plain);
    const uint32_t unit = SurrogateAt(string, 0);
    const bool whole = unit == 0 || (unit < 0xDC00 && SurrogateAt(string, 6) >= 0xDC00);
    const size_t bytes = std::min<size_t>(unit == 0 ? 2 : whole ? 12 : 6, string.size());
    absl::StrAppend(&quoted, whole ? string.substr(0, bytes) : "\\ufffd");
    string.remove_prefix(bytes);
  }
}

// `text` with Python's numbers in quotes. Checks the depth and the number of keys on the way, before anything is built
// from the text.
absl::StatusOr<std::string> QuotePythonNumbers(absl::string_view text, int max_keys) {
  std::string quoted;
  quoted.reserve(text.size());
  int depth = 0, keys = 0;
  for (size_t i = 0; i < text.size();) {
    const char letter = text[i];
    if (letter == '"') {
      const size_t end = EndOfString(text, i);
      AppendString(text.substr(i, end - i), quoted);
      i = end;
      continue;
    }
    if (letter == '-' || letter == 'I' || letter == 'N' || absl::ascii_isdigit(static_cast<unsigned char>(letter))) {
      const Number number = NumberAt(text, i);
      if (number.name.empty()) {
        absl::StrAppend(&quoted, text.substr(i, number.bytes));
      } else {
        absl::StrAppend(&quoted, "\"", number.name, "\"");
      }
      i += number.bytes;
      continue;
    }
    if ((letter == '[' || letter == '{') && ++depth > kMaxJsonDepth) {
      return absl::InvalidArgumentError(absl::StrCat("nests arrays and objects more than ", kMaxJsonDepth, " deep"));
    }
    if (letter == ':' && ++keys > max_keys) {
      return absl::InvalidArgumentError(absl::StrCat("has more than ", max_keys, " keys"));
    }
    depth -= letter == ']' || letter == '}' ? 1 : 0;
    quoted.push_back(letter);
    ++i;
  }
  return quoted;
}

template <typename Json>
absl::StatusOr<Json> ParseObject(absl::string_view text, int max_keys) {
  ABSL_ASSIGN_OR_RETURN(const std::string quoted, QuotePythonNumbers(text, max_keys));
  try {
    Json json = Json::parse(quoted);
    if (!json.is_object()) {
      return absl::InvalidArgumentError("is not a JSON object");
    }
    return std::move(json);
  } catch (const nlohmann::json::exception& fault) {  // syntax, invalid UTF-8
    return absl::InvalidArgumentError(absl::StrCat("is not JSON: ", fault.what()));
  }
}

}  // namespace

std::string JsonExcerpt(const nlohmann::json& value) {
  constexpr size_t kMost = 100;
  const std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() > kMost ? absl::StrCat(text.substr(0, kMost), "...") : text;
}

bool IsPythonNumber(const nlohmann::json& value) {
  return value.is_string() && std::find(std::begin(kPythonNumbers), std::end(kPythonNumbers),
                                        value.get_ref<const std::string&>()) != std::end(kPythonNumbers);
}

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text) {
  return ParseObject<nlohmann::json>(text, std::numeric_limits<int>::max());
}

absl::StatusOr<nlohmann::ordered_json> ParseOrderedJsonObject(absl::string_view text) {
  return ParseObject<nlohmann::ordered_json>(text, kMaxOrderedJsonKeys);
}

}  // namespace hotlora
