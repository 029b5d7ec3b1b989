#ifndef HOTLORA_SRC_BASE_JSON_TEXT_H_
#define HOTLORA_SRC_BASE_JSON_TEXT_H_

// Parses JSON files that other programs wrote: configurations of models and adapters, metadata, tokenizers.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <nlohmann/json.hpp>

namespace hotlora {

// Arrays and objects inside one another. The files that programs write nest to about 8. The limit keeps every later
// recursion over the value (a copy, a dump) shallow.
constexpr int kMaxJsonDepth = 64;

// The object that `text` holds. Accepts what Python's json module writes beyond RFC 8259: a byte-order mark, integers
// beyond 64 bits (read as doubles), halves of surrogate pairs (read as U+FFFD), and the numbers NaN, Infinity and
// -Infinity. These three become the strings "NaN", "Infinity" and "-Infinity": a reader that expects a number refuses
// them, a reader that ignores the key is not stopped. A number beyond a double is infinite, as in Python. Time and
// memory are O(text.size()), whatever the nesting.
//
// Errors: INVALID_ARGUMENT, with a message to follow a file's name: "is not JSON: ...", "is not a JSON object",
// "nests arrays and objects more than 64 deep".
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text);

// All keys of a text whose order is kept: nlohmann's ordered objects take time in the square of their keys.
constexpr int kMaxOrderedJsonKeys = 10'000;

// The same, with the keys in the order of the text. One more error: "has more than 10000 keys".
absl::StatusOr<nlohmann::ordered_json> ParseOrderedJsonObject(absl::string_view text);

// The value as JSON on one line, for messages: its first 100 bytes, then "..." if there are more.
std::string JsonExcerpt(const nlohmann::json& value);

// Whether a parsed value is what ParseJsonObject makes of NaN, Infinity or -Infinity. For readers of strings that take
// any text.
bool IsPythonNumber(const nlohmann::json& value);

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_JSON_TEXT_H_
