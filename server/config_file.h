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

// InvalidArgument, with the line, if a key of a TOML text has more parts. The parser makes a table for each part and
// destroys them by recursion; brackets it limits itself. Takes time proportional to the text.
absl::Status CheckTomlKeys(absl::string_view text);

// Reads the TOML file of --config, at most 1 MiB. InvalidArgument with what is wrong and the line, to follow the path.
absl::StatusOr<toml::table> ReadTomlFile(const std::string& path);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CONFIG_FILE_H_
