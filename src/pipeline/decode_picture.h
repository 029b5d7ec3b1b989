#ifndef HOTLORA_SRC_PIPELINE_DECODE_PICTURE_H_
#define HOTLORA_SRC_PIPELINE_DECODE_PICTURE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/base/error_details.h"
#include "src/image/rgb_image.h"

namespace hotlora {

// Decodes a file of a request. One that cannot be decoded becomes a violation of `field`, and the result is empty.
// Other errors come back.
absl::StatusOr<RgbImage> DecodePicture(absl::string_view field, const std::string& file,
                                       std::vector<FieldViolation>& violations);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_DECODE_PICTURE_H_
