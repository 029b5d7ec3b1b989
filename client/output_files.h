#ifndef HOTLORA_CLIENT_OUTPUT_FILES_H_
#define HOTLORA_CLIENT_OUTPUT_FILES_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace hotlora {

// Names of `count` images: `out` itself for one, else a number before the ending: "cat-0.png",
// "cat-1.png".
std::vector<std::string> OutputNames(const std::string& out, size_t count);

// Name of a preview of `image` of `count` after `step` steps, padded so that names sort: "cat-05.jpg", or
// "cat-1-05.jpg" of several images. ".jpg" is added if `out` does not end so.
std::string PreviewName(const std::string& out, uint32_t image, uint32_t count, uint32_t step, uint32_t total_steps);

// OK if the folder of `path` exists and can be written. Called before minutes of work, whose result could not be kept
// otherwise. `flag` begins the message.
absl::Status CheckWritable(absl::string_view flag, const std::string& path);

// Replaces `path` atomically; on error the old file stays.
absl::Status WriteFile(const std::string& path, absl::string_view bytes);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_OUTPUT_FILES_H_
