#ifndef HOTLORA_SRC_REQUEST_VALIDATION_H_
#define HOTLORA_SRC_REQUEST_VALIDATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "src/base/error_details.h"
#include "src/request/image_job.h"
#include "src/request/image_request.h"

namespace hotlora {

// What validation has to know of the model and the server.
struct RequestLimits {
  uint32_t native_size = 1024;  // default width and height: UNet sample size x VAE factor
  uint32_t max_clip_skip = 11;  // the smaller encoder's layers - 1
  // ModelInfo's; these outlive the validation.
  absl::Span<const std::string> unet_modules, cross_attentions;
};

inline constexpr uint32_t kMinSide = 16, kMaxSide = 4096, kSideMultiple = 8;
inline constexpr uint64_t kMaxPixels = 4'200'000;
inline constexpr uint32_t kMaxImages = 16;
inline constexpr uint32_t kMaxSteps = 1000;
inline constexpr uint32_t kMaxDistilledSteps = 50;  // as many as such models were distilled on
inline constexpr size_t kMaxPromptBytes = 16 * 1024;
inline constexpr size_t kMaxAdapters = 16;
inline constexpr size_t kMaxBlocks = 64;  // of one adapter or image prompt
inline constexpr size_t kMaxEmbeddings = 16;
inline constexpr size_t kMaxTokenBytes = 64;
inline constexpr double kMaxAdapterWeight = 10.0;
inline constexpr double kMaxGuidanceScale = 100.0;
inline constexpr double kMaxHiresScale = 4.0;

// InvalidArgument (reason INVALID_REQUEST) that carries the bad fields and lists them in its message. At least one.
absl::Status InvalidRequest(std::vector<FieldViolation> violations);

// Checks every field and fills in defaults. InvalidArgument (reason INVALID_REQUEST) lists every bad field at once,
// each with its value and the allowed range. Draws a random seed below 2^32 if none is given, and a random request
// id if it is empty. Thread-safe; touches no file and no tensor.
absl::StatusOr<ImageJob> ValidateImageRequest(const ImageRequest& request, const RequestLimits& limits);

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_VALIDATION_H_
