#ifndef HOTLORA_SERVER_CONFIG_FILE_H_
#define HOTLORA_SERVER_CONFIG_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "toml++/toml.h"

namespace hotlora {

// Parts of one key, as in "a.b.c". The settings of the server have one.
constexpr int kMaxTomlKeyParts = 8;

// The text as toml++ 3.3 can be given it, line by line: in ASCII, because the parser's test for white space has
// undefined behaviour for most other characters, and it makes that test wherever it looks for the end of a wrong value.
// Comments are left out; a string of one line gets escapes. InvalidArgument, with the line, if
//   a character outside ASCII stands anywhere else (TOML allows it only there and in strings of more lines);
//   a key has more parts than kMaxTomlKeyParts: the parser makes a table for each part and destroys them by recursion
//     (it limits the depth of brackets itself).
// O(n) in the length of the text.
absl::StatusOr<std::string> AsciiToml(absl::string_view text);

// Reads the TOML file of --config, at most 1 MiB. InvalidArgument with what is wrong and the line, to follow the path.
absl::StatusOr<toml::table> ReadTomlFile(const std::string& path);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CONFIG_FILE_H_
