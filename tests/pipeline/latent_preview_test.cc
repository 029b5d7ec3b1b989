#include "src/pipeline/latent_preview.h"

#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/pipeline/pipeline_fixture.h"

namespace hotlora {
namespace {

at::Tensor Pixels(const RgbImage& image) {
  return at::from_blob(const_cast<uint8_t*>(image.pixels.data()), {image.height, image.width, 3}, at::kByte)
      .to(at::kDouble);
}

// Pearson's, over all pixels and channels.
double Correlation(const RgbImage& a, const RgbImage& b) {
  const at::Tensor x = Pixels(a) - Pixels(a).mean(), y = Pixels(b) - Pixels(b).mean();
  return ((x * y).sum() / (x.norm() * y.norm())).item<double>();
}

// The image at a preview's size: the mean of each block of pixels.
RgbImage Shrunk(const RgbImage& image, int64_t factor) {
  const at::Tensor mean = at::avg_pool2d(Pixels(image).permute({2, 0, 1}).unsqueeze(0), {factor, factor});
  return ToRgbImage(mean / 255 * 2 - 1);
}

// The demo model, which was trained to paint.
class LatentPreviewTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto model = SdxlModel::Load(CheckpointSource(GoldenPath("../../deploy/demo/model")), TestPlace());
    ASSERT_TRUE(model.ok()) << model.status();
    auto pipeline = MakeSdxlPipeline(*std::move(model), "demo");
    ASSERT_TRUE(pipeline.ok()) << pipeline.status();
    pipeline_ = *std::move(pipeline);
  }

  std::unique_ptr<Row> Start(const std::string& prompt, Sampler sampler, uint32_t preview_every) {
    ImageRequest request;
    request.prompt = prompt;
    request.width = request.height = 128;
    request.steps = 8;
    request.sampler = sampler;
    request.preview_every = preview_every;
    const ImageJob job = *ValidateImageRequest(request, {});
    auto conditioning = pipeline_->Encode(job.prompts, job.denoise.cfg(), {}, ApplyMode::kMerged);
    EXPECT_TRUE(conditioning.ok()) << conditioning.status();
    auto row = pipeline_->StartRow(job.denoise, 7, *std::move(conditioning), {}, nullptr, nullptr, nullptr);
    EXPECT_TRUE(row.ok()) << row.status();
    return *std::move(row);
  }

  std::unique_ptr<Pipeline> pipeline_;
};

TEST_F(LatentPreviewTest, PreviewsApproachTheFinalImage) {
  for (const Sampler sampler : {Sampler::kEuler, Sampler::kHeun, Sampler::kDpmpp2M, Sampler::kDdim}) {
    const std::unique_ptr<Row> row = Start("a red circle", sampler, 1);
    std::vector<RgbImage> previews;
    while (!row->done()) {
      const uint32_t before = row->steps_done();
      ASSERT_TRUE(pipeline_->Step(BatchPlan{{row.get()}}).ok());
      if (row->steps_done() > before) {
        auto preview = pipeline_->Preview(*row);
        ASSERT_TRUE(preview.ok()) << preview.status();
        previews.push_back(*std::move(preview));
      }
    }
    const RgbImage final_image = Shrunk(*pipeline_->Decode(*row, VaeForm::kWhole), 8);
    ASSERT_EQ(previews.size(), 8u);
    ASSERT_EQ(previews.back().width, final_image.width);
    const double first = Correlation(previews.front(), final_image), last = Correlation(previews.back(), final_image);
    EXPECT_GT(last, 0.8);
    EXPECT_GT(last, first);
  }
}

TEST_F(LatentPreviewTest, DrawsTheSamePictureEachTime) {
  const std::unique_ptr<Row> row = Start("a red circle", Sampler::kEuler, 1);
  ASSERT_TRUE(pipeline_->Step(BatchPlan{{row.get()}}).ok());
  EXPECT_EQ(pipeline_->Preview(*row)->pixels, pipeline_->Preview(*row)->pixels);
}

TEST_F(LatentPreviewTest, ThePictureIsTheSameWithAndWithout) {
  const auto finish = [&](uint32_t preview_every) {
    const std::unique_ptr<Row> row = Start("a blue square", Sampler::kUniPc, preview_every);
    while (!row->done()) {
      EXPECT_TRUE(pipeline_->Step(BatchPlan{{row.get()}}).ok());
      if (preview_every > 0 && row->steps_done() % preview_every == 0) {
        EXPECT_TRUE(pipeline_->Preview(*row).ok());
      } else {
        EXPECT_FALSE(pipeline_->Preview(*row).ok());  // none was kept
      }
    }
    return *pipeline_->Decode(*row, VaeForm::kWhole);
  };
  EXPECT_EQ(finish(3).pixels, finish(0).pixels);
}

}  // namespace
}  // namespace hotlora
