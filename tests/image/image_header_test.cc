#include "src/image/image_header.h"

#include <string>

#include "absl/strings/match.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/image/input_images.h"

namespace hotlora {
namespace {

using ::testing::HasSubstr;

std::string Why(absl::string_view file) { return std::string(ReadImageHeader(file).status().message()); }

// `file` with the big-endian number at `at` replaced.
std::string WithNumber(std::string file, size_t at, uint32_t value, int bytes) {
  std::string number;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    number.push_back(static_cast<char>(value >> shift));
  }
  return file.replace(at, number.size(), number);
}

TEST(ReadImageHeaderTest, SizesAndOrientationsOfEveryFormat) {
  const nlohmann::json manifest = InputImagesManifest();
  for (const nlohmann::json& entry : manifest.at("cases")) {
    const std::string name = entry.at("name");
    const auto header = ReadImageHeader(InputImage(name));
    ASSERT_TRUE(header.ok()) << name << ": " << header.status();
    EXPECT_EQ(header->width, 44u) << name;
    EXPECT_EQ(header->height, 30u) << name;
    const size_t at = name.find("orientation_");
    EXPECT_EQ(header->orientation, at == std::string::npos ? 1 : name[at + 12] - '0') << name;
    const RgbImage expected = ExpectedImage(name);
    EXPECT_EQ(header->upright_width(), expected.width) << name;
    EXPECT_EQ(header->upright_height(), expected.height) << name;
    EXPECT_EQ(header->format, absl::EndsWith(name, ".png")   ? InputFormat::kPng
                              : absl::EndsWith(name, ".jpg") ? InputFormat::kJpeg
                                                             : InputFormat::kWebp)
        << name;
  }
}

TEST(ReadImageHeaderTest, RefusesWhatIsNoPngJpegOrWebp) {
  for (const std::string& file : {std::string(), std::string("x"), std::string("RIFF1234WAVE"), std::string("<svg/>"),
                                  std::string(1000, '\0'), InputImage("image.gif"), InputImage("image.bmp")}) {
    EXPECT_EQ(Why(file), "is not a PNG, JPEG or WebP file");
  }
  EXPECT_THAT(Why(InputImage("animated.webp")), HasSubstr("animated WebP"));
  EXPECT_THAT(Why("\x89PNG\r\n\x1a\n"), HasSubstr("without a header"));
  EXPECT_THAT(Why("\xFF\xD8\xFF\xE0"), HasSubstr("without a frame header"));
  EXPECT_THAT(Why("RIFF1234WEBPVP8 "), HasSubstr("broken header"));
}

TEST(ReadImageHeaderTest, RefusesSizesOverTheLimits) {
  const std::string png = InputImage("rgb8.png");
  constexpr size_t kWidth = 16, kHeight = 20;
  EXPECT_TRUE(ReadImageHeader(WithNumber(png, kWidth, kMaxInputSide, 4)).ok());
  for (const std::string& file :
       {WithNumber(png, kWidth, kMaxInputSide + 1, 4), WithNumber(png, kHeight, 0xFFFFFFFF, 4),
        WithNumber(png, kWidth, 0, 4), WithNumber(WithNumber(png, kWidth, 4100, 4), kHeight, 4100, 4)}) {
    EXPECT_THAT(Why(file), HasSubstr("allowed are 1 to 8192 on a side and 16800000 together"));
  }
  EXPECT_THAT(Why(std::string(kMaxInputBytes + 1, 'x')), HasSubstr("allowed are at most 33554432"));
}

TEST(ReadImageHeaderTest, OrientationThatMakesNoSenseIsUpright) {
  std::string png = InputImage("orientation_6.png");
  const size_t exif = png.find("eXIf") + 4, value = png.find(std::string("\x01\x12", 2), exif);
  ASSERT_NE(value, std::string::npos);  // big-endian TIFF, as Pillow writes it
  EXPECT_EQ(ReadImageHeader(png)->orientation, 6);
  EXPECT_EQ(ReadImageHeader(WithNumber(png, value + 8, 9, 2))->orientation, 1);
  EXPECT_EQ(ReadImageHeader(WithNumber(png, exif + 4, 0xFFFFFFF0, 4))->orientation, 1);  // directory outside
  EXPECT_EQ(ReadImageHeader(WithNumber(png, exif, 0, 4))->orientation, 1);               // no TIFF
}

}  // namespace
}  // namespace hotlora
