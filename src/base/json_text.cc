#include "src/base/json_text.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/strings/match.h"
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

// The Python number that begins at `position`, or an empty view.
absl::string_view PythonNumberAt(absl::string_view text, size_t position) {
  for (const absl::string_view number : kPythonNumbers) {
    if (absl::StartsWith(text.substr(position), number)) {
      return number;
    }
  }
  return {};
}

// `text` with Python's numbers in quotes. Checks the depth and the number of keys on the way, before anything is built
// from the text.
absl::StatusOr<std::string> QuotePythonNumbers(absl::string_view text, int max_keys) {
  std::string quoted;
  quoted.reserve(text.size());
  int depth = 0, keys = 0;
  for (size_t i = 0; i < text.size();) {
    const char letter = text[i];
    absl::string_view token = text.substr(i, 1);
    if (letter == '"') {
      token = text.substr(i, EndOfString(text, i) - i);
    } else if (letter == '[' || letter == '{') {
      if (++depth > kMaxJsonDepth) {
        return absl::InvalidArgumentError(absl::StrCat("nests arrays and objects more than ", kMaxJsonDepth, " deep"));
      }
    } else if (letter == ']' || letter == '}') {
      --depth;
    } else if (letter == ':') {
      if (++keys > max_keys) {
        return absl::InvalidArgumentError(absl::StrCat("has more than ", max_keys, " keys"));
      }
    } else if (letter == '-' || letter == 'I' || letter == 'N') {
      if (const absl::string_view number = PythonNumberAt(text, i); !number.empty()) {
        absl::StrAppend(&quoted, "\"", number, "\"");
        i += number.size();
        continue;
      }
    }
    absl::StrAppend(&quoted, token);
    i += token.size();
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
  } catch (const nlohmann::json::exception& fault) {  // syntax, invalid UTF-8, a number beyond a double
    return absl::InvalidArgumentError(absl::StrCat("is not JSON: ", fault.what()));
  }
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text) {
  return ParseObject<nlohmann::json>(text, std::numeric_limits<int>::max());
}

absl::StatusOr<nlohmann::ordered_json> ParseOrderedJsonObject(absl::string_view text) {
  return ParseObject<nlohmann::ordered_json>(text, kMaxOrderedJsonKeys);
}

}  // namespace hotlora
