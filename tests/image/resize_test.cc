#include "src/image/resize.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "src/image/image_decoder.h"
#include "tests/image/input_images.h"

namespace hotlora {
namespace {

constexpr std::pair<uint32_t, uint32_t> kSizes[] = {{64, 64}, {20, 15}, {88, 31}, {44, 90}, {13, 30}, {300, 7}};

TEST(ResizeTest, LanczosEqualsPillow) {
  const RgbImage image = *DecodeImage(InputImage("rgb8.png"));
  for (const auto& [width, height] : kSizes) {
    const RgbImage resized = ResizeLanczos(image, width, height);
    EXPECT_EQ(resized.width, width);
    EXPECT_EQ(resized.height, height);
    EXPECT_EQ(resized.pixels, ExpectedImage(absl::StrCat("lanczos_", width, "x", height)).pixels)
        << width << "x" << height;
  }
}

TEST(ResizeTest, NearestEqualsPillow) {
  const RgbImage image = *DecodeImage(InputImage("rgb8.png"));
  for (const auto& [width, height] : kSizes) {
    EXPECT_EQ(ResizeNearest(image, width, height).pixels,
              ExpectedImage(absl::StrCat("nearest_", width, "x", height)).pixels)
        << width << "x" << height;
  }
}

TEST(ResizeTest, SameSizeIsTheSameImage) {
  const RgbImage image = *DecodeImage(InputImage("rgb8.png"));
  EXPECT_EQ(ResizeLanczos(image, image.width, image.height).pixels, image.pixels);
  EXPECT_EQ(ResizeNearest(image, image.width, image.height).pixels, image.pixels);
}

// Its resizing is compared with Pillow's by ImagePromptTest.
TEST(ResizeTest, CoverSquareTakesTheMiddle) {
  const RgbImage image = *DecodeImage(InputImage("rgb8.png"));
  ASSERT_GT(image.width, image.height);
  const uint32_t side = image.height - 3, left = (image.width - side) / 2;
  const RgbImage square = CoverSquare(image, {image.height, side});
  EXPECT_EQ(square.width, side);
  EXPECT_EQ(square.height, side);
  for (uint32_t y = 0; y < side; ++y) {
    const auto* const row = &image.pixels[((y + 1) * image.width + left) * 3];
    EXPECT_TRUE(std::equal(row, row + side * 3, &square.pixels[y * side * 3])) << "row " << y;
  }
}

TEST(ResizeTest, CoverSquareOfAStripTakesLittleMemory) {
  constexpr uint32_t kLength = 1 << 20, kSide = 224;  // the whole strip, enlarged, would have 157 GB
  const RgbImage strip{kLength, 1, std::vector<uint8_t>(size_t{kLength} * 3, 77)};
  const std::vector<uint8_t> expected(size_t{kSide} * kSide * 3, 77);
  EXPECT_EQ(CoverSquare(strip, {kSide, kSide}).pixels, expected);
  EXPECT_EQ(CoverSquare({1, kLength, strip.pixels}, {kSide, kSide}).pixels, expected);
}

TEST(ResizeTest, LumaEqualsPillow) {
  const RgbImage image = *DecodeImage(InputImage("rgb8.png"));
  EXPECT_EQ(Luma(image), ExpectedImage("luma").pixels);
}

}  // namespace
}  // namespace hotlora
