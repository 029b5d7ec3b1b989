#ifndef HOTLORA_SRC_IMAGE_RESIZE_H_
#define HOTLORA_SRC_IMAGE_RESIZE_H_

#include <cstdint>
#include <vector>

#include "src/image/middle_square.h"
#include "src/image/rgb_image.h"

namespace hotlora {

// Resizing as Pillow's Image.resize does it, bit for bit. Thread-safe; may throw std::bad_alloc. REQUIRES: no side is
// 0.

// By Lanczos' kernel of three lobes, as wide as the image shrinks: first along the rows, then along the columns, each
// rounded to 8 bits, with weights in fixed point.
RgbImage ResizeLanczos(const RgbImage& image, uint32_t width, uint32_t height);

// What CLIP's image encoders see: the shorter side brought to `edge` by Keys' cubic kernel (a = -1/2), resized as
// ResizeLanczos does it, and the longer one in proportion, rounded down; then the square of `side` in the middle. Only
// what the square is made of is resized, so that a long strip takes no more memory.
RgbImage CoverSquare(const RgbImage& image, MiddleSquare square);

// By the pixel whose middle is nearest.
RgbImage ResizeNearest(const RgbImage& image, uint32_t width, uint32_t height);

// Brightness of each pixel by ITU-R 601-2: (299 R + 587 G + 114 B) / 1000.
std::vector<uint8_t> Luma(const RgbImage& image);

}  // namespace hotlora

#endif  // HOTLORA_SRC_IMAGE_RESIZE_H_
