#ifndef HOTLORA_SRC_BASE_BOUNDED_READ_H_
#define HOTLORA_SRC_BASE_BOUNDED_READ_H_

// Whole files in memory, with a limit on their size: settings, configurations, tokenizers, secrets. Pipes and files of
// /proc, whose size is not known before, are read too. Memory is O(max_bytes) at most, also if the file grows
// meanwhile.

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace hotlora {

// The messages follow the file's name.
//   NotFound             "is missing"
//   FailedPrecondition   "cannot be read: Permission denied"
//   ResourceExhausted    "has 70 bytes; at most 64 are allowed"
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t max_bytes);

// The same of a file that is open, from where it stands to its end.
absl::StatusOr<std::string> ReadToEnd(int descriptor, size_t max_bytes);

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_BOUNDED_READ_H_
