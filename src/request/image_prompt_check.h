#ifndef HOTLORA_SRC_REQUEST_IMAGE_PROMPT_CHECK_H_
#define HOTLORA_SRC_REQUEST_IMAGE_PROMPT_CHECK_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "src/request/image_job.h"
#include "src/request/image_request.h"
#include "src/request/violations.h"

namespace hotlora {

inline constexpr size_t kMaxImagePrompts = 2;
inline constexpr size_t kMaxPromptImages = 4;  // of one image prompt
inline constexpr double kMaxImagePromptScale = 4.0;

// Checks the image prompts of a request, all that can be known without their files. Leaves out those of which no cross
// attention sees anything. `cross_attentions`: the model's, sorted.
std::vector<ImagePromptUse> CheckImagePrompts(const std::vector<ImagePromptRef>& refs,
                                              absl::Span<const std::string> cross_attentions, Violations& violations);

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_IMAGE_PROMPT_CHECK_H_
