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

// Rewrites the text in ASCII, with the same lines. toml++ 3.3 tests characters for white space, and that test has
// undefined behaviour for most characters outside ASCII. After a wrong value it tests any character, also those of
// strings and comments. InvalidArgument, with the line, if
//   a character outside ASCII stands anywhere but in a comment or in a string of one line (TOML allows it also in
//     strings of more lines), or right after the backslash of an escape;
//   such a comment or string is not UTF-8;
//   a key has more parts than kMaxTomlKeyParts: the parser makes a table for each part and destroys them by recursion
//     (it limits the depth of brackets itself).
// O(n) in the length of the text.
absl::StatusOr<std::string> AsciiToml(absl::string_view text);

// Reads the TOML file of --config, at most 1 MiB. InvalidArgument with what is wrong and the line, to follow the path.
absl::StatusOr<toml::table> ReadTomlFile(const std::string& path);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CONFIG_FILE_H_
