// The VAE's tiled form through the pipeline.

#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "src/image/image_encoder.h"
#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

class TiledVaeTest : public PipelineFixture {};

TEST_F(TiledVaeTest, MakesTheSamePictures) {
  ImageRequest request;
  request.prompt = "a photo of a cat";
  request.width = 72;
  request.height = 136;
  request.steps = 2;
  RgbImage picture{72, 136, std::vector<uint8_t>(size_t{72} * 136 * 3)};
  for (size_t i = 0; i < picture.pixels.size(); ++i) {
    picture.pixels[i] = static_cast<uint8_t>(i * 7 % 251);
  }
  request.init_image = *EncodeImage(picture, ImageFormat::kPng, 90, "");
  request.strength = 0.5;
  const ImageJob job = Job(request);
  const auto conditioning = pipeline_->Encode(job.prompts, job.denoise.cfg(), {}, mode_);
  ASSERT_TRUE(conditioning.ok()) << conditioning.status();
  const auto init_picture = LoadInitPicture(job);
  ASSERT_TRUE(init_picture.ok()) << init_picture.status();
  std::vector<RgbImage> images;
  for (const VaeForm form : {VaeForm::kWhole, VaeForm::kTiled}) {
    auto init = pipeline_->EncodeInit(*init_picture, form);
    ASSERT_TRUE(init.ok()) << init.status();
    auto row = pipeline_->StartRow(job.denoise, 7, *conditioning, {}, *std::move(init), nullptr, nullptr);
    ASSERT_TRUE(row.ok()) << row.status();
    auto image = pipeline_->Decode(*Finish(*std::move(row)), form);
    ASSERT_TRUE(image.ok()) << image.status();
    images.push_back(*std::move(image));
  }
  EXPECT_LE(Difference(images[0], images[1]), 1);  // rounding to bytes may fall either way
}

}  // namespace
}  // namespace hotlora
