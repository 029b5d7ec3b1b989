#include "src/pipeline/decode_picture.h"

#include "src/image/image_decoder.h"

namespace hotlora {

absl::StatusOr<RgbImage> DecodePicture(absl::string_view field, const std::string& file,
                                       std::vector<FieldViolation>& violations) {
  absl::StatusOr<RgbImage> image = DecodeImage(file);
  if (absl::IsInvalidArgument(image.status())) {
    violations.push_back({std::string(field), std::string(image.status().message())});
    return RgbImage();
  }
  return image;
}

}  // namespace hotlora
