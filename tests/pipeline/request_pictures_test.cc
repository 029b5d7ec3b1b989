#include "src/pipeline/request_pictures.h"

#include <string>

#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/image/image_decoder.h"
#include "src/image/image_encoder.h"
#include "src/image/resize.h"

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

// The bad fields that an error names.
std::vector<std::string> FieldsOf(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : GetErrorDetails(status).violations) {
    fields.push_back(violation.field);
  }
  return fields;
}

TEST(LoadRequestPicturesTest, GivesControlPicturesTheSizeOfTheImages) {
  const auto pictures = LoadRequestPictures(Job({Picture(16, 8, 10), Picture(32, 32, 200)}), {});
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
  EXPECT_EQ(FieldsOf(LoadRequestPictures(Job({cut, sound, cut}, cut), {}).status()),
            (std::vector<std::string>{"init_image", "controls[0].image", "controls[2].image"}));
}

TEST(LoadRequestPicturesTest, LeavesOfImagePromptsWhatTheEncoderSees) {
  constexpr MiddleSquare kSeen = {6, 4};
  ImageJob job = Job({});
  job.hires = job.denoise;
  job.image_prompts.resize(2);
  job.image_prompts[0].images = {Picture(20, 30, 10)};
  job.image_prompts[1].images = {Picture(16, 8, 20), Picture(5, 1, 200)};
  const auto pictures = LoadRequestPictures(job, kSeen);
  ASSERT_TRUE(pictures.ok()) << pictures.status();
  ASSERT_EQ(pictures->image_prompts.size(), 2u);
  ASSERT_EQ(pictures->image_prompts[0].size(), 1u);
  ASSERT_EQ(pictures->image_prompts[1].size(), 2u);
  EXPECT_EQ(pictures->image_prompts[0][0].width, 4u);
  EXPECT_EQ(pictures->image_prompts[0][0].height, 4u);
  EXPECT_EQ(pictures->image_prompts[1][1].pixels, std::vector<uint8_t>(4 * 4 * 3, 200));
  EXPECT_EQ(pictures->image_prompts[0][0].pixels,
            CoverSquare(*DecodeImage(job.image_prompts[0].images[0]), kSeen).pixels);
}

TEST(LoadRequestPicturesTest, NamesEveryPictureOfAnImagePromptThatCannotBeDecoded) {
  const std::string sound = Picture(16, 8, 1), cut = sound.substr(0, sound.size() / 2);
  ImageJob job = Job({cut});
  job.image_prompts.resize(2);
  job.image_prompts[0].images = {sound, cut};
  job.image_prompts[0].field = "image_prompts[0]";
  job.image_prompts[1].images = {cut};
  job.image_prompts[1].field = "image_prompts[1]";
  const std::vector<std::string> expected = {"controls[0].image", "image_prompts[0].images[1]",
                                             "image_prompts[1].images[0]"};
  EXPECT_EQ(FieldsOf(LoadRequestPictures(job, {2, 2}).status()), expected);
}

}  // namespace
}  // namespace hotlora
