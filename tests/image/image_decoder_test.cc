#include "src/image/image_decoder.h"

#include <cstdlib>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/image/image_header.h"
#include "tests/image/input_images.h"

namespace hotlora {
namespace {

using ::testing::HasSubstr;

int LargestDifference(const RgbImage& a, const RgbImage& b) {
  int largest = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    largest = std::max(largest, std::abs(a.pixels[i] - b.pixels[i]));
  }
  return largest;
}

TEST(DecodeImageTest, EqualsPillow) {
  const nlohmann::json manifest = InputImagesManifest();
  ASSERT_GE(manifest.at("cases").size(), 28u);
  for (const nlohmann::json& entry : manifest.at("cases")) {
    const std::string name = entry.at("name");
    const auto image = DecodeImage(InputImage(name));
    ASSERT_TRUE(image.ok()) << name << ": " << image.status();
    const RgbImage expected = ExpectedImage(name);
    ASSERT_EQ(image->width, expected.width) << name;
    ASSERT_EQ(image->height, expected.height) << name;
    ASSERT_EQ(image->pixels.size(), expected.pixels.size()) << name;
    EXPECT_LE(LargestDifference(*image, expected), entry.at("tolerance").get<int>()) << name;
  }
}

TEST(DecodeImageTest, RefusesOtherFormats) {
  const nlohmann::json manifest = InputImagesManifest();
  for (const std::string name : manifest.at("refused")) {
    const auto image = DecodeImage(InputImage(name));
    EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST(DecodeImageTest, RefusesFilesThatAreCutOff) {
  const nlohmann::json manifest = InputImagesManifest();
  for (const nlohmann::json& entry : manifest.at("cases")) {
    const std::string name = entry.at("name"), file = InputImage(name);
    for (const double part : {0.0, 0.1, 0.5, 0.9}) {
      const auto image = DecodeImage(absl::string_view(file).substr(0, static_cast<size_t>(part * file.size())));
      EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument) << name << " to " << part;
    }
  }
}

TEST(DecodeImageTest, RefusesAFileWhoseDataEndBeforeItsPixels) {
  std::string png = InputImage("rgb8.png");
  const size_t height = 23;  // its last byte; the checksum no longer fits, so that is what libpng names
  png[height] = 31;
  EXPECT_THAT(std::string(DecodeImage(png).status().message()), HasSubstr("is a PNG file that cannot be decoded"));
  std::string jpeg = InputImage("color.jpg");
  jpeg.resize(jpeg.size() - 200);
  jpeg += "\xFF\xD9";
  EXPECT_THAT(std::string(DecodeImage(jpeg).status().message()), HasSubstr("is a JPEG file that cannot be decoded"));
}

TEST(DecodeImageTest, RefusesAJpegOfManyScans) {
  // A progressive file's last scan, over and over: cheap to send, dear to decode.
  const std::string jpeg = InputImage("progressive.jpg");
  const size_t last = jpeg.rfind("\xFF\xDA"), end = jpeg.rfind("\xFF\xD9");
  ASSERT_LT(last, end);
  std::string bomb = jpeg.substr(0, end);
  for (int i = 0; i < 200; ++i) {
    bomb += jpeg.substr(last, end - last);
  }
  const auto image = DecodeImage(bomb + "\xFF\xD9");
  EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument) << image.status();
}

// Every answer to a broken file is an image of the header's size or InvalidArgument; sanitizers watch the rest.
TEST(DecodeImageTest, SurvivesMutatedFiles) {
  std::mt19937 random(20);
  int decoded = 0, refused = 0;
  const nlohmann::json manifest = InputImagesManifest();
  for (const nlohmann::json& entry : manifest.at("cases")) {
    const std::string file = InputImage(entry.at("name"));
    for (int round = 0; round < 2000; ++round) {
      std::string mutated = file;
      const int changes = 1 + static_cast<int>(random() % 4);
      for (int i = 0; i < changes; ++i) {
        const size_t at = random() % mutated.size();
        switch (random() % 4) {
          case 0:
            mutated[at] = static_cast<char>(random());
            break;
          case 1:
            mutated[at] = static_cast<char>(mutated[at] ^ (1 << random() % 8));
            break;
          case 2:
            mutated.erase(at, random() % 16);
            break;
          default:
            mutated.insert(at, mutated.substr(random() % mutated.size(), random() % 16));
        }
        mutated += mutated.empty() ? "x" : "";
      }
      const auto header = ReadImageHeader(mutated);
      // A size that the limits allow may still be a thousand times this one's: not worth the time here.
      if (header.ok() && uint64_t{header->width} * header->height > 100'000) {
        continue;
      }
      const auto image = DecodeImage(mutated);
      if (image.ok()) {
        ++decoded;
        ASSERT_TRUE(header.ok());
        EXPECT_EQ(image->width, header->upright_width());
        EXPECT_EQ(image->pixels.size(), size_t{image->width} * image->height * 3);
      } else {
        ++refused;
        EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument) << image.status();
      }
    }
  }
  EXPECT_GT(decoded, 500);
  EXPECT_GT(refused, 5000);
}

}  // namespace
}  // namespace hotlora
