#include "src/image/image_encoder.h"

#include <png.h>

#include <cstring>
#include <string>

#include <gtest/gtest.h>

#include "src/image/image_decoder.h"

namespace hotlora {
namespace {

RgbImage Gradient(uint32_t width, uint32_t height) {
  RgbImage image{width, height, {}};
  for (uint32_t y = 0; y < height; ++y) {
    for (uint32_t x = 0; x < width; ++x) {
      image.pixels.insert(image.pixels.end(), {static_cast<uint8_t>(x * 7), static_cast<uint8_t>(y * 5), 200});
    }
  }
  return image;
}

TEST(EncodeImageTest, PngComesBackPixelForPixel) {
  const RgbImage image = Gradient(40, 24);
  const auto data = EncodeImage(image, ImageFormat::kPng, 90, "");
  ASSERT_TRUE(data.ok());
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  ASSERT_TRUE(png_image_begin_read_from_memory(&png, data->data(), data->size()));
  png.format = PNG_FORMAT_RGB;
  EXPECT_EQ(png.width, 40u);
  EXPECT_EQ(png.height, 24u);
  std::vector<uint8_t> pixels(PNG_IMAGE_SIZE(png));
  ASSERT_TRUE(png_image_finish_read(&png, nullptr, pixels.data(), 0, nullptr));
  EXPECT_EQ(pixels, image.pixels);
}

TEST(EncodeImageTest, PngCarriesItsParameters) {
  const RgbImage image = Gradient(8, 8);
  const auto ascii = EncodeImage(image, ImageFormat::kPng, 90, "a cat, \"big\"\nSteps: 3");
  ASSERT_TRUE(ascii.ok());
  EXPECT_NE(ascii->find(std::string("tEXtparameters\0a cat, \"big\"\nSteps: 3", 36)), std::string::npos);
  const auto utf8 = EncodeImage(image, ImageFormat::kPng, 90, "Käse");
  ASSERT_TRUE(utf8.ok());
  EXPECT_NE(utf8->find(std::string("iTXtparameters\0\0\0\0\0Käse", 24)), std::string::npos);
  const auto none = EncodeImage(image, ImageFormat::kPng, 90, "");
  EXPECT_EQ(none->find("parameters"), std::string::npos);
}

TEST(EncodeImageTest, JpegAndWebpCarryTheirMarksAndGrowWithQuality) {
  const RgbImage image = Gradient(64, 64);
  for (const auto& [format, mark, offset] :
       {std::tuple{ImageFormat::kJpeg, "JFIF", 6}, {ImageFormat::kWebp, "WEBP", 8}}) {
    const auto low = EncodeImage(image, format, 10, ""), high = EncodeImage(image, format, 95, "");
    ASSERT_TRUE(low.ok() && high.ok());
    EXPECT_EQ(high->substr(offset, 4), mark);
    EXPECT_LT(low->size(), high->size());
  }
}

TEST(EncodeImageTest, JpegAndWebpCarryTheirParametersAsExif) {
  const RgbImage image = Gradient(8, 8);
  const std::string utf16("UNICODE\0\0K\0\xE4\0s\0e\0 \xD8\x3D\xDE\x3A", 22);
  for (const ImageFormat format : {ImageFormat::kJpeg, ImageFormat::kWebp}) {
    const auto with = EncodeImage(image, format, 90, "K\xC3\xA4se \xF0\x9F\x98\xBA");
    ASSERT_TRUE(with.ok());
    EXPECT_NE(with->find(utf16), std::string::npos);
    const auto decoded = DecodeImage(*with), plain = DecodeImage(*EncodeImage(image, format, 90, ""));
    ASSERT_TRUE(decoded.ok() && plain.ok()) << decoded.status() << plain.status();
    EXPECT_EQ(decoded->pixels, plain->pixels);
    EXPECT_EQ(EncodeImage(image, format, 90, std::string(40'000, 'x'))->find("UNICODE"), std::string::npos);
  }
}

TEST(EncodeImageTest, RawIsThePixels) {
  const RgbImage image = Gradient(8, 16);
  const auto data = EncodeImage(image, ImageFormat::kRawRgb8, 90, "");
  ASSERT_TRUE(data.ok());
  EXPECT_EQ(data->size(), image.pixels.size());
  EXPECT_EQ(std::memcmp(data->data(), image.pixels.data(), data->size()), 0);
}

TEST(EncodeImageTest, SamePixelsSameBytes) {
  const RgbImage image = Gradient(32, 32);
  for (const ImageFormat format : {ImageFormat::kPng, ImageFormat::kJpeg, ImageFormat::kWebp}) {
    EXPECT_EQ(*EncodeImage(image, format, 90, ""), *EncodeImage(image, format, 90, ""));
  }
}

}  // namespace
}  // namespace hotlora
