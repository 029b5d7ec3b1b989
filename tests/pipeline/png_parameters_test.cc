#include "src/pipeline/png_parameters.h"

#include <string>
#include <utility>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

const std::string kVersion = std::string("Version: hotlora ") + HOTLORA_VERSION;

ImageJob Job() {
  ImageJob job;
  job.prompts.prompt = job.prompts.prompt_2 = "a red circle";
  job.denoise.width = 128;
  job.denoise.height = 64;
  job.denoise.steps = 20;
  return job;
}

ModelInfo Model() {
  ModelInfo model;
  model.name = "demo";
  model.sha256 = "0123456789abcdef";
  return model;
}

TEST(ImageParametersTest, PlainRequest) {
  EXPECT_EQ(
      ImageParameters(Job(), 7, Model(), {}),
      "a red circle\nSteps: 20, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 128x64, Model hash: 0123456789, Model: "
      "demo, " +
          kVersion);
}

TEST(ImageParametersTest, NamesEverySampler) {
  const std::pair<Sampler, const char*> names[] = {{Sampler::kEuler, "Euler"},
                                                   {Sampler::kEulerAncestral, "Euler a"},
                                                   {Sampler::kHeun, "Heun"},
                                                   {Sampler::kDdim, "DDIM"},
                                                   {Sampler::kDpmpp2M, "DPM++ 2M"},
                                                   {Sampler::kDpmpp2MSde, "DPM++ 2M SDE"},
                                                   {Sampler::kUniPc, "UniPC"},
                                                   {Sampler::kLcm, "LCM"},
                                                   {Sampler::kTcd, "TCD"},
                                                   {Sampler::kDpm2, "DPM2"},
                                                   {Sampler::kDpm2Ancestral, "DPM2 a"},
                                                   {Sampler::kLms, "LMS"},
                                                   {Sampler::kDeis, "DEIS"},
                                                   {Sampler::kDpmpp2S, "DPM++ 2S"},
                                                   {Sampler::kDpmpp3M, "DPM++ 3M"},
                                                   {Sampler::kDpmpp3MSde, "DPM++ 3M SDE"}};
  for (const auto& [sampler, name] : names) {
    ImageJob job = Job();
    job.denoise.sampler = sampler;
    const std::string text = ImageParameters(job, 7, Model(), {});
    EXPECT_NE(text.find(std::string(", Sampler: ") + name + ", "), std::string::npos) << text;
  }
}

TEST(ImageParametersTest, NamesEveryScheduleAndEta) {
  const auto holds = [](const ImageJob& job, const std::string& part) {
    return ImageParameters(job, 7, Model(), {}).find(part) != std::string::npos;
  };
  const std::pair<NoiseScheduleKind, const char*> names[] = {{NoiseScheduleKind::kKarras, "Karras"},
                                                             {NoiseScheduleKind::kExponential, "Exponential"},
                                                             {NoiseScheduleKind::kTrailing, "Trailing"},
                                                             {NoiseScheduleKind::kBeta, "Beta"},
                                                             {NoiseScheduleKind::kAys, "Align Your Steps"},
                                                             {NoiseScheduleKind::kSgmUniform, "SGM Uniform"},
                                                             {NoiseScheduleKind::kLu, "Lu"}};
  for (const auto& [schedule, name] : names) {
    ImageJob job = Job();
    job.denoise.schedule = schedule;
    EXPECT_TRUE(holds(job, std::string(", Schedule type: ") + name + ", ")) << name;
    EXPECT_FALSE(holds(job, "Eta"));
  }
  ImageJob job = Job();
  job.denoise.sampler = Sampler::kTcd;
  EXPECT_TRUE(holds(job, ", Eta: 0, "));
  job.denoise.eta = 0.25;
  EXPECT_TRUE(holds(job, ", Eta: 0.25, "));
  job.denoise.sampler = Sampler::kDdim;
  EXPECT_TRUE(holds(job, ", Eta DDIM: 0.25, "));
}

TEST(ImageParametersTest, SaysHowBracketsWereRead) {
  ImageJob job = Job();
  job.prompts.weighted = true;
  EXPECT_EQ(ImageParameters(job, 7, Model(), {}).find("Emphasis"), std::string::npos);
  job.prompts.prompt = job.prompts.prompt_2 = "a (red:1.2) circle";
  EXPECT_NE(ImageParameters(job, 7, Model(), {}).find(", Emphasis: No norm, "), std::string::npos);
  job.prompts.weighted = false;
  EXPECT_NE(ImageParameters(job, 7, Model(), {}).find(", Emphasis: None, "), std::string::npos);
}

TEST(ImageParametersTest, EverythingThatShapesThePicture) {
  ImageJob job = Job();
  job.prompts.negative_prompt = job.prompts.negative_prompt_2 = "blue";
  job.prompts.prompt_2 = "line\nof \"two\"";
  job.prompts.clip_skip = 1;
  job.denoise.sampler = Sampler::kDpmpp2MSde;
  job.denoise.schedule = NoiseScheduleKind::kKarras;
  job.denoise.guidance_scale = 6.5;
  job.denoise.guidance_rescale = 0.7;
  job.denoise.guidance_end = 0.8;
  ModelInfo model = Model();
  model.name = "my, model";
  const ImageSources sources = {
      {{{"styles/ink", 0.5, 0.5}, std::string(64, 'a')}, {{"neon", 1.0, 0.25}, std::string(64, 'b')}},
      {{"<s\"0>", std::string(64, 'c')}, {"oil", std::string(64, 'd')}}};
  EXPECT_EQ(
      ImageParameters(job, 18446744073709551615u, model, sources),
      "a red circle <lora:styles/ink:0.5> <lora:neon:0.25:1>\nNegative prompt: blue\nSteps: 20, Sampler: DPM++ 2M "
      "SDE, Schedule type: Karras, CFG scale: 6.5, Seed: 18446744073709551615, Size: 128x64, Model hash: "
      "0123456789, Model: \"my, model\", Clip skip: 2, Prompt 2: \"line\\nof \\\"two\\\"\", CFG rescale: 0.7, CFG "
      "window: 0 to 0.8, Lora hashes: \"styles/ink: aaaaaaaaaaaa, neon: bbbbbbbbbbbb\", TI hashes: \"<s\\\"0>: "
      "cccccccccccc, oil: dddddddddddd\", " +
          kVersion);
}

TEST(ImageParametersTest, AdaptersByRangeAndBlock) {
  ImageSources sources;
  sources.adapters = {
      {{"plain", 1.0, 1.0}, std::string(64, 'a')},
      {{"ink", 0.5, 0.5, {0.0, 0.5}}, std::string(64, 'b')},
      {{"neon", 0.0, 0.0, {1.0 / 3, 1.0}, {{"mid_block", 0.1 + 0.2}, {"up_blocks.0", -1.0}}}, std::string(64, 'c')}};
  const std::string text = ImageParameters(Job(), 7, Model(), sources);
  EXPECT_NE(text.find("Lora ranges: \"ink: 0 to 0.5, neon: 0.33333333333333331 to 1\", Lora blocks: \"neon: "
                      "mid_block=0.30000000000000004 up_blocks.0=-1\", Version"),
            std::string::npos)
      << text;
}

TEST(ImageParametersTest, Controls) {
  ControlUse lines, type;
  lines.name = "lines";
  lines.scale = 0.5;
  lines.range = {0.25, 1.0};
  type.name = "a \"union\"";
  type.type = 3;
  ImageSources sources;
  sources.controls = {{&lines, std::string(64, 'a')}, {&type, std::string(64, 'b')}};
  const std::string text = ImageParameters(ImageJob(), 7, ModelInfo(), sources);
  EXPECT_NE(
      text.find(", ControlNet 0: \"Model: lines [aaaaaaaaaaaa], Weight: 0.5, Guidance Start: 0.25, Guidance End: 1\""),
      std::string::npos)
      << text;
  EXPECT_NE(text.find(", ControlNet 1: \"Model: a \\\"union\\\" [bbbbbbbbbbbb], Weight: 1, Guidance Start: 0, Guidance "
                      "End: 1, Control Type: 3\""),
            std::string::npos)
      << text;
}

TEST(ImageParametersTest, ImagePrompts) {
  ImagePromptUse style, subject;
  style.name = "style";
  style.scale = 0.6;
  style.images.assign(2, "PNG");
  subject.name = "a, b";
  subject.images = {"PNG"};
  subject.blocks = {{"mid_block", 1.0}, {"up_blocks.0", 0.3}};
  ImageSources sources;
  sources.image_prompts = {{&style, std::string(64, 'a')}, {&subject, std::string(64, 'b')}};
  const std::string text = ImageParameters(ImageJob(), 7, ModelInfo(), sources);
  EXPECT_NE(text.find(", Image prompt 0: \"Model: style [aaaaaaaaaaaa], Weight: 0.6, Images: 2\", Image prompt 1: "
                      "\"Model: a, b [bbbbbbbbbbbb], Weight: 1, Images: 1, Blocks: mid_block=1 up_blocks.0=0.3\""),
            std::string::npos)
      << text;
}

TEST(ImageParametersTest, AnInitImagesStrength) {
  ImageJob job = Job();
  job.denoise.strength = 0.6;
  EXPECT_EQ(ImageParameters(job, 7, Model(), {}).find("Denoising strength"), std::string::npos);
  job.init_image = "PNG";
  EXPECT_NE(ImageParameters(job, 7, Model(), {}).find("Model: demo, Denoising strength: 0.6, Version"),
            std::string::npos);
}

TEST(ImageParametersTest, ASecondPass) {
  ImageJob job = Job();
  job.hires = job.denoise;
  job.hires->strength = 0.5;
  job.hires->steps = 12;
  job.hires_scale = 1.5;
  EXPECT_NE(ImageParameters(job, 7, Model(), {})
                .find("Size: 128x64, Model hash: 0123456789, Model: demo, Denoising strength: 0.5, Hires upscale: 1.5, "
                      "Hires steps: 12, Hires upscaler: Lanczos, Version"),
            std::string::npos);
  job.init_image = "a picture";
  job.denoise.strength = 0.6;
  EXPECT_NE(ImageParameters(job, 7, Model(), {})
                .find("Denoising strength: 0.6, Hires denoising strength: 0.5, Hires upscale: 1.5, "),
            std::string::npos);
}

}  // namespace
}  // namespace hotlora
