#include "src/pipeline/request_pictures.h"

#include <string>

#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/image/image_encoder.h"

namespace hotlora {
namespace {

std::string Picture(uint32_t width, uint32_t height, uint8_t value) {
  const RgbImage image{width, height, std::vector<uint8_t>(size_t{3} * width * height, value)};
  return EncodeImage(image, ImageFormat::kPng, 90, "").value();
}

ImageJob Job(std::vector<std::string> controls, std::string init = "") {
  ImageJob job;
  job.denoise.width = 16;
  job.denoise.height = 8;
  job.init_image = std::move(init);
  for (std::string& image : controls) {
    ControlUse& use = job.controls.emplace_back();
    use.field = "controls[" + std::to_string(job.controls.size() - 1) + "]";
    use.image = std::move(image);
  }
  return job;
}

TEST(LoadRequestPicturesTest, GivesControlPicturesTheSizeOfTheImages) {
  const auto pictures = LoadRequestPictures(Job({Picture(16, 8, 10), Picture(32, 32, 200)}));
  ASSERT_TRUE(pictures.ok()) << pictures.status();
  ASSERT_EQ(pictures->controls.size(), 2u);
  for (const RgbImage& picture : pictures->controls) {
    EXPECT_EQ(picture.width, 16u);
    EXPECT_EQ(picture.height, 8u);
  }
  EXPECT_EQ(pictures->controls[0].pixels.front(), 10);
  EXPECT_EQ(pictures->controls[1].pixels.front(), 200);
  EXPECT_TRUE(pictures->init.image.pixels.empty());
}

TEST(LoadRequestPicturesTest, NamesEveryFileThatCannotBeDecoded) {
  const std::string sound = Picture(16, 8, 1), cut = sound.substr(0, sound.size() / 2);
  const absl::Status status = LoadRequestPictures(Job({cut, sound, cut}, cut)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : GetErrorDetails(status).violations) {
    fields.push_back(violation.field);
  }
  EXPECT_EQ(fields, (std::vector<std::string>{"init_image", "controls[0].image", "controls[2].image"}));
}

}  // namespace
}  // namespace hotlora
