#include "src/pipeline/init_picture.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/image/image_encoder.h"

namespace hotlora {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Grey values, row by row, as a PNG.
std::string Grey(uint32_t width, uint32_t height, const std::vector<uint8_t>& values) {
  RgbImage image{width, height, {}};
  for (const uint8_t value : values) {
    image.pixels.insert(image.pixels.end(), 3, value);
  }
  return *EncodeImage(image, ImageFormat::kPng, 90, "");
}

ImageJob Job(std::string init, std::string mask, uint32_t width, uint32_t height) {
  ImageJob job;
  job.denoise.width = width;
  job.denoise.height = height;
  job.init_image = std::move(init);
  job.mask_image = std::move(mask);
  return job;
}

TEST(LoadInitPictureTest, KeepsPixelsOfTheJobsSize) {
  const auto picture = LoadInitPicture(Job(Grey(2, 1, {7, 200}), "", 2, 1));
  ASSERT_TRUE(picture.ok()) << picture.status();
  EXPECT_THAT(picture->image.pixels, ElementsAre(7, 7, 7, 200, 200, 200));
  EXPECT_TRUE(picture->repaint.empty());
}

TEST(LoadInitPictureTest, RepaintsFromLuma128On) {
  const auto picture = LoadInitPicture(Job(Grey(2, 2, {0, 0, 0, 0}), Grey(2, 2, {127, 128, 0, 255}), 2, 2));
  ASSERT_TRUE(picture.ok()) << picture.status();
  EXPECT_THAT(picture->repaint, ElementsAre(0, 1, 0, 1));
}

TEST(LoadInitPictureTest, ResizesTheImageSmoothlyAndTheMaskToNearest) {
  const auto picture = LoadInitPicture(Job(Grey(2, 1, {0, 255}), Grey(2, 1, {0, 255}), 4, 1));
  ASSERT_TRUE(picture.ok()) << picture.status();
  EXPECT_EQ(picture->image.width, 4u);
  EXPECT_GT(picture->image.pixels[3], 0);
  EXPECT_LT(picture->image.pixels[3], 128);
  EXPECT_THAT(picture->repaint, ElementsAre(0, 0, 1, 1));
}

TEST(LoadInitPictureTest, NamesEveryFileThatCannotBeDecoded) {
  std::string good = Grey(8, 8, std::vector<uint8_t>(64, 100));
  const std::string cut = good.substr(0, good.size() - 30);
  const absl::Status both = LoadInitPicture(Job(cut, cut, 8, 8)).status();
  EXPECT_EQ(both.code(), absl::StatusCode::kInvalidArgument);
  const ErrorDetails details = GetErrorDetails(both);
  EXPECT_EQ(details.reason, "INVALID_REQUEST");
  ASSERT_EQ(details.violations.size(), 2u);
  EXPECT_EQ(details.violations[0].field, "init_image");
  EXPECT_EQ(details.violations[1].field, "mask_image");
  EXPECT_THAT(details.violations[1].description, HasSubstr("is a PNG file that cannot be decoded"));
  const absl::Status mask = LoadInitPicture(Job(good, cut, 8, 8)).status();
  ASSERT_EQ(GetErrorDetails(mask).violations.size(), 1u);
  EXPECT_EQ(GetErrorDetails(mask).violations[0].field, "mask_image");
}

}  // namespace
}  // namespace hotlora
