#ifndef HOTLORA_SRC_IMAGE_IMAGE_ENCODER_H_
#define HOTLORA_SRC_IMAGE_IMAGE_ENCODER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "src/image/rgb_image.h"

namespace hotlora {

// The image as a file: PNG by libpng, JPEG by libjpeg-turbo, WebP by libwebp (`quality` 1 to 100 for these two), or the
// bare pixels. A PNG carries `parameters`, UTF-8, as the text chunk of that name; JPEG and WebP as EXIF's
// UserComment, unless that is over 65,000 bytes of UTF-16; none if they are empty. Deterministic.
// Thread-safe; no LibTorch. ResourceExhausted if memory runs out.
absl::StatusOr<std::string> EncodeImage(const RgbImage& image, ImageFormat format, uint32_t quality,
                                        const std::string& parameters);

}  // namespace hotlora

#endif  // HOTLORA_SRC_IMAGE_IMAGE_ENCODER_H_
