#include "src/image/resize.h"

#include <utility>

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

TEST(ResizeTest, LumaEqualsPillow) {
  const RgbImage image = *DecodeImage(InputImage("rgb8.png"));
  EXPECT_EQ(Luma(image), ExpectedImage("luma").pixels);
}

}  // namespace
}  // namespace hotlora
