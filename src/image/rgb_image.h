#ifndef HOTLORA_SRC_IMAGE_RGB_IMAGE_H_
#define HOTLORA_SRC_IMAGE_RGB_IMAGE_H_

#include <cstdint>
#include <iterator>
#include <vector>

#include "src/base/enum_size.h"

namespace hotlora {

// The formats of finished images, and what metrics call them.
enum class ImageFormat { kPng, kJpeg, kWebp, kRawRgb8 };
inline constexpr const char* kImageFormatNames[] = {"png", "jpeg", "webp", "raw_rgb8"};
static_assert(std::size(kImageFormatNames) == kEnumSize<ImageFormat>);

struct RgbImage {
  uint32_t width = 0, height = 0;
  std::vector<uint8_t> pixels;  // height x width x 3, rows top-down, interleaved, no padding
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_IMAGE_RGB_IMAGE_H_
