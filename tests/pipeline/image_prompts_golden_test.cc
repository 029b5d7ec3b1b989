// Golden pictures of diffusers with image prompts, through the pipeline: alone, and as rows of one batch that differ in
// them. What they take and leave in memory.

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/image/image_decoder.h"
#include "src/image/resize.h"
#include "src/pipeline/image_prompt_calls.h"
#include "src/sdxl/placed_image_prompt.h"
#include "src/tensor/memory_stats.h"
#include "tests/golden_controlnets.h"
#include "tests/pipeline/golden_request.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

constexpr char kFolder[] = "image_prompt";

RgbImage Picture(const std::string& name) {
  const auto picture = DecodeImage(GoldenFile(absl::StrCat(kFolder, "/", name)));
  EXPECT_TRUE(picture.ok()) << picture.status();
  return *picture;
}

int convolutions = 0;

std::unique_ptr<at::ObserverContext> CountConvolution(const at::RecordFunction& function) {
  convolutions += std::string_view(function.name()) == "aten::conv2d" ? 1 : 0;
  return nullptr;
}

class ImagePromptsGoldenTest : public PipelineFixture {
 protected:
  // An image on its way, as its request gets it.
  struct Image {
    std::string name;
    ImageJob job;
    AdapterSchedule adapters;
    std::shared_ptr<const Controls> controls;
    std::shared_ptr<const ImagePrompts> prompts;
    uint64_t seed = 0;
  };

  static void SetUpTestSuite() { InstallCountingCpuAllocator(); }

  void SetUp() override {
    PipelineFixture::SetUp();
    WriteControlNetFolder("lines", folder_.Under("lines"));
    LoadNets();
  }

  void LoadNets() {
    for (const char* const file : {"standard.safetensors", "plus.safetensors"}) {
      auto net = LoadImagePrompt(GoldenPath(absl::StrCat(kFolder, "/", file)), model_->config(), TestPlace(dtype_));
      ASSERT_TRUE(net.ok()) << net.status();
      nets_[file] = *std::move(net);
    }
    auto encoder = LoadImageEncoder(GoldenPath(absl::StrCat(kFolder, "/image_encoder")), TestPlace(dtype_));
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    encoder_ = *std::move(encoder);
    auto lines = LoadControlNet(folder_.Under("lines"), model_->config(), TestPlace(dtype_));
    ASSERT_TRUE(lines.ok()) << lines.status();
    lines_ = *std::move(lines);
  }

  void UseDtype(c10::ScalarType dtype) {
    nets_.clear();
    encoder_.reset();
    lines_.reset();
    Reload(dtype);
    LoadNets();
  }

  // With rules, a cross attention that none of them names sees nothing.
  ImagePromptInputs Inputs(const nlohmann::json& golden, bool negative = true) {
    ImagePromptInputs inputs{encoder_, negative, {}};
    for (const nlohmann::json& entry : golden.at("image_prompts")) {
      ImagePromptInput& input = inputs.prompts.emplace_back();
      input.net = nets_.at(entry.at("adapter"));
      for (const nlohmann::json& name : entry.at("images")) {
        input.pictures.push_back(CoverSquare(Picture(name), encoder_->network.config().square()));
      }
      input.scale = entry.contains("block_rules") ? 0.0 : entry.at("scale").get<double>();
      for (const nlohmann::json& rule : entry.value("block_rules", nlohmann::json::array())) {
        input.blocks.push_back({rule.at("prefix"), rule.at("weight")});
      }
    }
    return inputs;
  }

  std::shared_ptr<const ImagePrompts> Encode(const nlohmann::json& golden, bool negative = true) {
    auto encoded = pipeline_->EncodeImagePrompts(Inputs(golden, negative));
    EXPECT_TRUE(encoded.ok()) << encoded.status();
    return *std::move(encoded);
  }

  // The case has one control, of the net "lines", at most.
  std::shared_ptr<const Controls> Control(const ImageJob& job) {
    if (job.controls.empty()) {
      return nullptr;
    }
    const ControlUse& use = job.controls.front();
    auto picture = DecodeImage(use.image);
    EXPECT_TRUE(picture.ok()) << picture.status();
    auto embedded = pipeline_->EmbedControls({ControlInput{lines_, *std::move(picture), use.scale, use.range}});
    EXPECT_TRUE(embedded.ok()) << embedded.status();
    return *std::move(embedded);
  }

  Image ImageOf(const nlohmann::json& golden, const ImageRequest& request, uint64_t index = 0) {
    Image image;
    image.name = golden.at("name");
    image.job = Job(request);
    image.adapters = AdapterSchedule(Set(GoldenAdapters(golden)), image.job.denoise.evaluations());
    image.controls = Control(image.job);
    image.prompts = Encode(golden, image.job.denoise.cfg());
    image.seed = image.job.seed + index;
    return image;
  }

  std::unique_ptr<Row> StartImage(const Image& image) {
    return Start(image.job, image.adapters, image.seed, image.controls, image.prompts);
  }

  // Images that a batch may have beside each other: cases of the most common size, one of them without guidance, one
  // with it in a part of the steps, one by a sampler with two evaluations a step, and one with no image prompt.
  std::vector<Image> ImagesOfOneSize() {
    std::vector<Image> images;
    for (const nlohmann::json& golden : GoldenRuns(kFolder)) {
      const ImageRequest request = MakeGoldenRequest(golden);
      if (*request.width == 64 && *request.height == 64) {
        images.push_back(ImageOf(golden, request));
      }
      if (golden.at("name") != "two_adapters") {
        continue;
      }
      ImageRequest varied = request;
      varied.guidance_start = 0.25;
      varied.guidance_end = 0.75;
      images.push_back(ImageOf(golden, varied));
      images.back().name = "guidance in the middle";
      varied = request;
      varied.sampler = Sampler::kHeun;
      varied.preview_every = 2;
      images.push_back(ImageOf(golden, varied));
      images.back().name = "two evaluations a step";
      images.push_back(ImageOf(golden, request));
      images.back().name = "plain";
      images.back().prompts = nullptr;
    }
    return images;
  }

  // The most that the device's allocator adds to what tensors hold: it gives them whole blocks of 512 bytes; the CPU's
  // counts what was asked for.
  int64_t RoundedUp(const ImagePrompts& prompts) const {
    int64_t tensors = 0;
    for (const EncodedImagePrompt& prompt : static_cast<const SdxlImagePrompts&>(prompts).prompts) {
      tensors += static_cast<int64_t>(prompt.keys_values.size());
    }
    return model_->place().device.is_cpu() ? 0 : 511 * tensors;
  }

  int64_t Allocated() const { return GetMemoryStats(model_->place().device).allocated; }

  TemporaryFolder folder_;
  std::map<std::string, std::shared_ptr<const PlacedImagePrompt>> nets_;
  std::shared_ptr<const PlacedImageEncoder> encoder_;
  std::shared_ptr<const PlacedControlNet> lines_;
};

TEST_F(ImagePromptsGoldenTest, PicturesEqualTheReference) {
  const std::vector<nlohmann::json> cases = GoldenRuns(kFolder);
  EXPECT_EQ(cases.size(), 14u);
  for (const nlohmann::json& golden : cases) {
    const TensorMap expected =
        LoadTensors(GoldenPath(absl::StrCat(kFolder, "/", golden.at("file").get<std::string>())));
    for (const ApplyMode mode : {ApplyMode::kMerged, ApplyMode::kSide}) {
      mode_ = mode;
      for (size_t i = 0; i < golden.at("images").size(); ++i) {
        const Image image = ImageOf(golden, MakeGoldenRequest(golden), i);
        const auto row = Finish(StartImage(image));
        ExpectWithin(RowLatentsForTest(*row), expected.at("latents").narrow(0, static_cast<int64_t>(i), 1),
                     golden.at("tolerance").at("latents").at("absolute"), image.name + " latents");
        EXPECT_LE(Difference(Decoded(*row), Picture(golden.at("images").at(i))), 1) << image.name;
      }
    }
  }
}

TEST_F(ImagePromptsGoldenTest, RowsOfOneBatchDoNotSeeEachOthersImagePrompts) {
  for (const ApplyMode mode : {ApplyMode::kMerged, ApplyMode::kSide}) {
    mode_ = mode;
    const std::vector<Image> images = ImagesOfOneSize();
    ASSERT_EQ(images.size(), 16u);
    std::vector<at::Tensor> alone;
    std::vector<std::unique_ptr<Row>> rows;
    for (const Image& image : images) {
      alone.push_back(RowLatentsForTest(*Finish(StartImage(image))).cpu());
      rows.push_back(StartImage(image));
    }
    FinishTogether(rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      // As far as the golden runs may be off.
      ExpectWithin(RowLatentsForTest(*rows[i]), alone[i], 2e-3, images[i].name);
    }
    const auto differ = [&](const std::string& a, const std::string& b) {
      const auto latents = [&](const std::string& name) {
        return alone[std::find_if(images.begin(), images.end(), [&](const Image& i) { return i.name == name; }) -
                     images.begin()];
      };
      return RelativeError(latents(a), latents(b)) > 0.1;
    };
    EXPECT_TRUE(differ("two_adapters", "plain")) << "image prompts have no effect";
    EXPECT_TRUE(differ("two_adapters", "guidance in the middle"));
    EXPECT_TRUE(differ("with_lora", "standard_scale_0.6"));
    EXPECT_TRUE(differ("with_control", "standard_scale_0.6"));
  }
}

// Outside of the steps with guidance a row is as if there were none, and it goes on from there.
TEST_F(ImagePromptsGoldenTest, StepsWithoutGuidanceSeeThePicturesAlone) {
  const nlohmann::json golden = GoldenRuns(kFolder).front();
  ImageRequest request = MakeGoldenRequest(golden);
  request.guidance_start = 0.5;
  const auto late = StartImage(ImageOf(golden, request));
  request.guidance_start = 0.0;
  request.guidance_scale = 1.0;
  const auto never = StartImage(ImageOf(golden, request));
  for (uint32_t step = 0; step < late->total_steps(); ++step) {
    for (Row* const row : {late.get(), never.get()}) {
      ASSERT_TRUE(pipeline_->Step(BatchPlan{{row}, mode_}).ok());
    }
    const double apart = RelativeError(RowLatentsForTest(*late), RowLatentsForTest(*never));
    if (step < late->total_steps() / 2) {
      ExpectError(apart, 1e-5, absl::StrCat("step ", step));  // texts that are encoded side by side round otherwise
    } else {
      EXPECT_GT(apart, 1e-2) << "step " << step;
    }
  }
}

TEST_F(ImagePromptsGoldenTest, PreviewsShowThePicturesOfTheRow) {
  const nlohmann::json golden = GoldenRuns(kFolder).front();
  ImageRequest request = MakeGoldenRequest(golden);
  request.preview_every = *request.steps;
  const auto preview = [&](std::shared_ptr<const ImagePrompts> prompts) {
    const ImageJob job = Job(request);
    const auto row = Finish(Start(job, {}, job.seed, nullptr, std::move(prompts)));
    auto image = pipeline_->Preview(*row);
    EXPECT_TRUE(image.ok()) << image.status();
    return *std::move(image);
  };
  const RgbImage shown = preview(Encode(golden));
  EXPECT_EQ(shown.pixels, preview(Encode(golden)).pixels);
  EXPECT_GT(Difference(shown, preview(nullptr)), 5);
}

// Neither one that is merged into the UNet's cross attentions and the text encoders, nor one that steps beside them.
TEST_F(ImagePromptsGoldenTest, AdaptersDoNotReachWhatIsMadeOfThePictures) {
  const nlohmann::json golden = GoldenRuns(kFolder).front();
  const auto keys_values = [&] {
    return static_cast<const SdxlImagePrompts&>(*Encode(golden)).prompts.front().keys_values;
  };
  const std::vector<at::Tensor> without = keys_values();
  ASSERT_FALSE(without.empty());
  for (const ApplyMode mode : {ApplyMode::kMerged, ApplyMode::kSide}) {
    ASSERT_TRUE(pipeline_->Apply(Set({{"peft_attention", 0.8}, {"kohya_text_encoders_and_unet", 1.0}}), mode).ok());
    const std::vector<at::Tensor> with = keys_values();
    for (size_t i = 0; i < without.size(); ++i) {
      EXPECT_TRUE(at::equal(with[i], without[i])) << "cross attention " << i;
    }
  }
}

TEST_F(ImagePromptsGoldenTest, ARequestsPicturesGoThroughTheEncoderOnce) {
  for (const nlohmann::json& golden : GoldenRuns(kFolder)) {
    for (const bool negative : {true, false}) {
      const ImagePromptInputs inputs = Inputs(golden, negative);
      convolutions = 0;  // only the encoder has one
      const at::CallbackHandle counter = at::addThreadLocalCallback(at::RecordFunctionCallback(&CountConvolution));
      ASSERT_TRUE(pipeline_->EncodeImagePrompts(inputs).ok());
      at::removeCallback(counter);
      EXPECT_EQ(convolutions, 1) << golden.at("name");
    }
  }
}

TEST_F(ImagePromptsGoldenTest, AnErrorLeavesThePipelineUsable) {
  const nlohmann::json golden = GoldenRuns(kFolder).front();
  ImagePromptInputs inputs = Inputs(golden);
  inputs.prompts.front().pictures.clear();
  const int64_t before = Allocated();
  EXPECT_EQ(pipeline_->EncodeImagePrompts(inputs).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Allocated(), before);
  EXPECT_NE(Encode(golden), nullptr);
}

// What the scheduler sets aside before it has measured any, and what a request gives back.
TEST_F(ImagePromptsGoldenTest, TheyTakeNoMoreThanTheirShapesSay) {
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    UseDtype(dtype);
    for (const nlohmann::json& golden : GoldenRuns(kFolder)) {
      const std::string name = absl::StrCat(golden.at("name").get<std::string>(), " in ", DtypeName(dtype));
      const bool negative = Job(MakeGoldenRequest(golden)).denoise.cfg();
      const ImagePromptInputs inputs = Inputs(golden, negative);
      const ImagePromptBytes bytes = pipeline_->ImagePromptBytesOf(inputs);
      Encode(golden, negative);  // what is made once
      const int64_t before = Allocated();
      std::shared_ptr<const ImagePrompts> prompts;
      {
        const std::unique_ptr<PeakMeter> meter = pipeline_->MeasurePeak();
        prompts = *pipeline_->EncodeImagePrompts(inputs);
        EXPECT_LE(meter->bytes(), bytes.kept + bytes.encoding) << name;
        EXPECT_GT(meter->bytes(), bytes.kept) << name;
      }
      const int64_t kept = Allocated() - before;
      EXPECT_GE(kept, bytes.kept) << name;
      EXPECT_LE(kept, bytes.kept + RoundedUp(*prompts)) << name;
      const ImageJob job = Job(MakeGoldenRequest(golden));
      Finish(Start(job, {}, job.seed, nullptr, prompts));
      EXPECT_EQ(Allocated() - before, kept) << name << ": its rows keep nothing";
      prompts.reset();
      EXPECT_EQ(Allocated(), before) << name;
    }
  }
}

// As half_precision_test.cc says of a picture of three steps, in root mean squares of 255: 42 dB, and 52 dB. An init
// image goes through the VAE's encoder as well, which adds half as much again.
TEST_F(ImagePromptsGoldenTest, HalfTypesDrawThePicturesOfFloat32) {
  const auto pictures = [&](bool prompted) {
    std::map<std::string, RgbImage> pictures;
    for (const nlohmann::json& golden : GoldenRuns(kFolder)) {
      ImageRequest request = MakeGoldenRequest(golden);
      request.steps = 3;
      request.strength = golden.at("kind") == "image_to_image" ? std::optional<double>(1.0) : std::nullopt;
      Image image = ImageOf(golden, request);
      if (!prompted) {
        image.prompts = nullptr;
      }
      pictures[image.name] = Decoded(*Finish(StartImage(image)));
    }
    return pictures;
  };
  const auto root_mean_square = [](const RgbImage& a, const RgbImage& b) {
    return (Pixels(a).to(at::kDouble) - Pixels(b).to(at::kDouble)).square().mean().sqrt().item<double>();
  };
  std::map<std::string, RgbImage> expected = pictures(true), plain = pictures(false);
  expected.erase("standard_scale_0");
  for (const auto& [dtype, bound] : {std::pair{at::kBFloat16, 2.0}, std::pair{at::kHalf, 0.64}}) {
    UseDtype(dtype);
    std::map<std::string, RgbImage> drawn = pictures(true);
    for (const auto& [name, picture] : expected) {
      const double allowed = name == "image_to_image" ? 1.5 * bound : bound;
      ExpectError(root_mean_square(drawn[name], picture), allowed, absl::StrCat(name, " in ", DtypeName(dtype)));
      EXPECT_GT(root_mean_square(plain[name], picture), allowed)
          << name << ": the bound cannot tell it from the plain one";
    }
  }
}

}  // namespace
}  // namespace hotlora
