#ifndef HOTLORA_CLIENT_INPUT_FILES_H_
#define HOTLORA_CLIENT_INPUT_FILES_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hotlora {

// The bytes of the picture at `path`, "-" for standard input. InvalidArgument, with `flag` in front, if it cannot be
// read, is empty or has more bytes than any server takes.
absl::StatusOr<std::string> ReadPicture(absl::string_view flag, const std::string& path);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_INPUT_FILES_H_
