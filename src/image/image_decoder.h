#ifndef HOTLORA_SRC_IMAGE_IMAGE_DECODER_H_
#define HOTLORA_SRC_IMAGE_IMAGE_DECODER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/image/rgb_image.h"

namespace hotlora {

// An untrusted PNG, JPEG or WebP file as 8-bit RGB: grey and palettes widened, 16 bits rounded to 8, CMYK (as Adobe
// writes it) converted, transparency laid over white, EXIF's orientation applied. Colour profiles and gamma are left
// out of account. PNG by libpng, JPEG by libjpeg-turbo, WebP by libwebp.
//
// Thread-safe. Limits as ReadImageHeader's, before anything is decoded. InvalidArgument, in words that go behind the
// field's name, also for a file that is cut off or corrupt: nothing is guessed. ResourceExhausted if memory runs
// out.
absl::StatusOr<RgbImage> DecodeImage(absl::string_view file);

}  // namespace hotlora

#endif  // HOTLORA_SRC_IMAGE_IMAGE_DECODER_H_
