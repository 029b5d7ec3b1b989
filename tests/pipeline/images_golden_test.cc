// Golden images of diffusers' StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline and
// StableDiffusionXLInpaintPipeline.

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/image/image_decoder.h"
#include "src/pipeline/init_picture.h"
#include "tests/pipeline/golden_request.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/sdxl/weight_checksum.h"

namespace hotlora {
namespace {

nlohmann::json Manifest(const std::string& folder = "images") {
  std::ifstream stream(GoldenPath(folder + "/manifest.json"));
  return nlohmann::json::parse(stream);
}

class ImagesGoldenTest : public PipelineFixture {};

TEST_F(ImagesGoldenTest, InitImagesEqualTheReferenceWithEverySampler) {
  const nlohmann::json manifest = Manifest("init_images");
  ASSERT_EQ(manifest.at("cases").size(), 17u);
  for (const nlohmann::json& golden : manifest.at("cases")) {
    const std::string name = golden.at("name");
    const ImageJob job = Job(MakeGoldenRequest(golden));
    const std::unique_ptr<Row> row = Finish(Start(job, Set({}), job.seed));
    const TensorMap expected = LoadTensors(GoldenPath("init_images/" + golden.at("file").get<std::string>()));
    ExpectWithin(RowLatentsForTest(*row), expected.at("latents"), golden.at("tolerance").at("latents").at("absolute"),
                 name + " latents");
    const auto image = pipeline_->Decode(*row, VaeForm::kWhole);
    ASSERT_TRUE(image.ok()) << image.status();
    ExpectWithin(Pixels(*image), expected.at("pixels"), 1, name + " pixels");
  }
}

TEST_F(ImagesGoldenTest, MoreSamplersAndSchedulesEqualTheReference) {
  const nlohmann::json manifest = Manifest("samplers_more");
  int pictures = 0;
  for (const nlohmann::json& golden : manifest.at("cases")) {
    const std::string name = golden.at("name");
    if (golden.at("kind") == "trajectory") {
      continue;  // SamplersGoldenTest's
    }
    ++pictures;
    const ImageJob job = Job(MakeGoldenRequest(golden));
    const std::unique_ptr<Row> row = Finish(Start(job, Set({}), job.seed));
    const TensorMap expected = LoadTensors(GoldenPath("samplers_more/" + golden.at("file").get<std::string>()));
    ExpectWithin(RowLatentsForTest(*row), expected.at("latents"), golden.at("tolerance").at("latents").at("absolute"),
                 name + " latents");
    const auto image = pipeline_->Decode(*row, VaeForm::kWhole);
    ASSERT_TRUE(image.ok()) << image.status();
    const auto picture = DecodeImage(GoldenFile("samplers_more/" + golden.at("images").at(0).get<std::string>()));
    ASSERT_TRUE(picture.ok()) << picture.status();
    ExpectWithin(Pixels(*image), Pixels(*picture), 1, name + " pixels");
  }
  EXPECT_EQ(pictures, 30);
}

// Adapters by block of the UNet and by range of steps, merged and beside the weights.
class SteeredAdaptersGoldenTest : public ImagesGoldenTest {
 protected:
  static ImageRequest SteeredRequest(const nlohmann::json& golden) {
    ImageRequest request = MakeGoldenRequest(golden);
    for (const nlohmann::json& adapter : golden.at("adapters")) {
      AdapterRef& ref = request.adapters.emplace_back();
      ref.name = AdapterName(adapter.at("file"));
      ref.weight = adapter.at("scale").get<double>();
      ref.text_encoder_weight = adapter.value("text_encoder_scale", *ref.weight);
      if (adapter.contains("start")) {
        ref.start = adapter["start"].get<double>();
        ref.end = adapter["end"].get<double>();
      }
      for (const nlohmann::json& rule : adapter.value("block_rules", nlohmann::json::array())) {
        ref.blocks.push_back({rule.at("prefix"), rule.at("weight")});
      }
    }
    return request;
  }

  // Which evaluations hold each adapter's range, against what the reference did.
  static void ExpectInForceAsTheReference(const nlohmann::json& golden, const ImageJob& job) {
    ASSERT_EQ(job.denoise.evaluations(), golden.at("model_calls"));
    for (size_t i = 0; i < job.adapters.size(); ++i) {
      const nlohmann::json& by_step = golden.at("adapters")[i].at("scale_by_step");
      for (uint32_t step = 0; step < job.denoise.evaluations(); ++step) {
        EXPECT_EQ(job.adapters[i].range.Holds(step, job.denoise.evaluations()), by_step[step] != 0.0) << step;
      }
    }
  }

  void ExpectReference(const std::string& folder, const nlohmann::json& golden, ApplyMode mode) {
    mode_ = mode;
    const std::string name = golden.at("name").get<std::string>() + (mode == ApplyMode::kSide ? " side" : " merged");
    const ImageJob job = Job(SteeredRequest(golden));
    ASSERT_EQ(job.adapters.size(), golden.at("adapters").size());
    if (folder == "adapter_steps") {
      ExpectInForceAsTheReference(golden, job);
    }
    const std::unique_ptr<Row> row = Finish(Start(job, Schedule(job), job.seed));
    EXPECT_EQ(row->evaluations(), golden.at("model_calls"));
    const TensorMap expected = LoadTensors(GoldenPath(folder + "/" + golden.at("file").get<std::string>()));
    ExpectWithin(RowLatentsForTest(*row), expected.at("latents"), golden.at("tolerance").at("latents").at("absolute"),
                 name + " latents");
    const auto image = pipeline_->Decode(*row, VaeForm::kWhole);
    ASSERT_TRUE(image.ok()) << image.status();
    const auto picture = DecodeImage(GoldenFile(folder + "/" + golden.at("images").at(0).get<std::string>()));
    ASSERT_TRUE(picture.ok()) << picture.status();
    ExpectWithin(Pixels(*image), Pixels(*picture), 2, name + " pixels");
  }
};

TEST_F(SteeredAdaptersGoldenTest, EqualTheReferenceInBothForms) {
  const std::string live = LiveWeightsChecksum(model_->adaptable_weights());
  int cases = 0;
  for (const std::string folder : {"adapter_blocks", "adapter_steps"}) {
    const nlohmann::json manifest = Manifest(folder);
    for (const nlohmann::json& golden : manifest.at("cases")) {
      for (const ApplyMode mode : {ApplyMode::kMerged, ApplyMode::kSide}) {
        ExpectReference(folder, golden, mode);
        leases_.clear();
        ++cases;
      }
    }
  }
  EXPECT_EQ(cases, 32);
  ASSERT_TRUE(pipeline_->Apply({}, ApplyMode::kMerged).ok());
  EXPECT_EQ(LiveWeightsChecksum(model_->adaptable_weights()), live);
}

// What the mask keeps is the VAE's image of the init image, whatever the prompt and adapters.
TEST_F(ImagesGoldenTest, InpaintingKeepsWhatTheMaskDoes) {
  ImageRequest request;
  request.prompt = "a photo of a cat";
  request.init_image = GoldenPicture("init_image.png", 64, 64);
  request.mask_image = GoldenPicture("mask.png", 64, 64);
  request.steps = 3;
  request.seed = 9;
  const ImageJob job = Job(request);
  EXPECT_EQ(job.denoise.strength, 0.9999);
  const at::Tensor plain = RowLatentsForTest(*Finish(Start(job, {}, job.seed)));
  const at::Tensor adapted =
      RowLatentsForTest(*Finish(Start(job, Set({{"kohya_text_encoders_and_unet", 0.8}}), job.seed)));
  const at::Tensor mask =
      Pixels(*DecodeImage(request.mask_image)).select(2, 0).ge(128).slice(0, 0, 64, 8).slice(1, 0, 64, 8);
  const at::Tensor differs = (plain - adapted).abs().amax({0, 1}).gt(0);
  EXPECT_TRUE(at::equal(differs.cpu(), mask));
}

TEST_F(ImagesGoldenTest, ADifferentSeedIsADifferentImageOfTheSameInitImage) {
  ImageRequest request;
  request.init_image = GoldenPicture("init_image.png", 64, 64);
  request.strength = 0.5;
  request.steps = 4;
  const ImageJob job = Job(request);
  EXPECT_EQ(Start(job, {}, 1)->total_steps(), 2u);
  const auto latents = [&](uint64_t seed) { return RowLatentsForTest(*Finish(Start(job, {}, seed))).cpu(); };
  EXPECT_TRUE(at::equal(latents(1), latents(1)));
  EXPECT_FALSE(at::equal(latents(1), latents(2)));
}

TEST_F(ImagesGoldenTest, ImagesEqualTheReference) {
  const nlohmann::json manifest = Manifest();
  ASSERT_EQ(manifest.at("cases").size(), 22u);
  for (const nlohmann::json& golden : manifest.at("cases")) {
    const std::string name = golden.at("name");
    std::vector<std::pair<std::string, double>> adapters;
    for (const nlohmann::json& adapter : golden.at("adapters")) {
      adapters.emplace_back(AdapterName(adapter.at("file")), adapter.at("scale"));
    }
    const ImageJob job = Job(MakeGoldenRequest(golden));
    const std::unique_ptr<Row> row = Finish(Start(job, Set(adapters), job.seed));
    // Where the reference drew several images it went on with one generator; its first image alone is ours too.
    const TensorMap expected = LoadTensors(GoldenPath("images/" + golden.at("file").get<std::string>()));
    ExpectWithin(RowLatentsForTest(*row), expected.at("latents").narrow(0, 0, 1),
                 golden.at("tolerance").at("latents").at("absolute"), name + " latents");
    const auto image = pipeline_->Decode(*row, VaeForm::kWhole);
    ASSERT_TRUE(image.ok()) << image.status();
    const at::Tensor pixels = Pixels(*image);
    // Rounding to bytes may fall either way where 255 times the value is close to a half.
    ExpectWithin(pixels, expected.at("image")[0].permute({1, 2, 0}).mul(255).round(), 1, name + " pixels");
  }
}

TEST_F(ImagesGoldenTest, ASecondImageIsTheOneOfItsOwnSeed) {
  ImageRequest request;
  request.prompt = "a photo of a cat";
  request.width = request.height = 64;
  request.steps = 2;
  const ImageJob job = Job(request);
  const std::unique_ptr<Row> second = Finish(Start(job, {}, 42 + 1));
  const std::unique_ptr<Row> alone = Finish(Start(job, {}, 43));
  EXPECT_TRUE(at::equal(RowLatentsForTest(*second), RowLatentsForTest(*alone)));
  EXPECT_FALSE(at::equal(RowLatentsForTest(*second), RowLatentsForTest(*Finish(Start(job, {}, 42)))));
}

TEST_F(ImagesGoldenTest, SingleFileGivesTheFoldersImageByteForByte) {
  ImageRequest request;
  request.prompt = "a red circle";
  request.width = request.height = 128;
  request.steps = 2;
  request.seed = 5;
  const ImageJob job = Job(request);
  const auto of_folder = pipeline_->Decode(*Finish(Start(job, Set({}), job.seed)), VaeForm::kWhole);
  CheckpointSource source(SingleFilePath());
  source.model_config = GoldenPath("pipeline");
  auto model = SdxlModel::Load(source, TestPlace());
  ASSERT_TRUE(model.ok()) << model.status();
  auto pipeline = MakeSdxlPipeline(*std::move(model), "single_file");
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  pipeline_ = *std::move(pipeline);
  const auto of_file = pipeline_->Decode(*Finish(Start(job, Set({}), job.seed)), VaeForm::kWhole);
  ASSERT_TRUE(of_folder.ok() && of_file.ok()) << of_folder.status() << of_file.status();
  EXPECT_EQ(of_file->pixels, of_folder->pixels);
}

}  // namespace
}  // namespace hotlora
