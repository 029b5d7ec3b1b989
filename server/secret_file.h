#ifndef HOTLORA_SERVER_SECRET_FILE_H_
#define HOTLORA_SERVER_SECRET_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hotlora {

// What is in a file that decides who may call: tokens, certificates, keys. InvalidArgument, without the path, if the
// file cannot be read, is larger than 1 MiB, or can be written by every user of the machine.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path);

// Logs a warning if the file of the flag --`flag` can be read by every user of the machine, who can then call as others
// do. Kubernetes' Secrets are such files unless their defaultMode says otherwise, so they are not refused.
void WarnIfOthersRead(absl::string_view flag, const std::string& path);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SECRET_FILE_H_
