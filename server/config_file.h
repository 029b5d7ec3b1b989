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

// Refuses what toml++ 3.3 must not be given. InvalidArgument, with the line, if
//   a key has more parts than kMaxTomlKeyParts: the parser makes a table for each part and destroys them by recursion
//     (it limits the depth of brackets itself);
//   a character outside ASCII stands anywhere but in a comment or in a string of one line: the parser's test for white
//     space has undefined behaviour for most of them. TOML allows such characters only there and in strings of more
//     lines.
// O(n) in the length of the text.
absl::Status CheckTomlText(absl::string_view text);

// Reads the TOML file of --config, at most 1 MiB. InvalidArgument with what is wrong and the line, to follow the path.
absl::StatusOr<toml::table> ReadTomlFile(const std::string& path);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CONFIG_FILE_H_
