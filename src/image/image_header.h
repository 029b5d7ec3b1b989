#ifndef HOTLORA_SRC_IMAGE_IMAGE_HEADER_H_
#define HOTLORA_SRC_IMAGE_IMAGE_HEADER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hotlora {

// What an image that came over the wire may have at most. Checked before anything is decoded.
inline constexpr size_t kMaxInputBytes = size_t{32} << 20;
inline constexpr uint32_t kMaxInputSide = 8192;
inline constexpr uint64_t kMaxInputPixels = 16'800'000;

// The formats of images that callers send.
enum class InputFormat { kPng, kJpeg, kWebp };

struct ImageHeader {
  InputFormat format = InputFormat::kPng;
  uint32_t width = 0, height = 0;  // as stored
  // EXIF's, 1 to 8, from a JPEG's APP1, a PNG's eXIf or a WebP's EXIF; 1, upright, if there is none or it makes no
  // sense.
  int orientation = 1;

  // As shown.
  uint32_t upright_width() const { return orientation >= 5 ? height : width; }
  uint32_t upright_height() const { return orientation >= 5 ? width : height; }
};

// Reads an untrusted file's header and checks it against the limits above; allocates nothing. InvalidArgument, in words
// that go behind the field's name: "is not a PNG, JPEG or WebP file". Thread-safe.
absl::StatusOr<ImageHeader> ReadImageHeader(absl::string_view file);

}  // namespace hotlora

#endif  // HOTLORA_SRC_IMAGE_IMAGE_HEADER_H_
