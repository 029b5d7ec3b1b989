#include "src/request/validation.h"

#include <cmath>
#include <iterator>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/enum_size.h"
#include "src/base/error_details.h"
#include "src/request/control_check.h"

namespace hotlora {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

RequestLimits TinyLimits() {
  static const auto* const kModules =
      new std::vector<std::string>{"conv_in", "down_blocks.1.conv", "down_blocks.10.conv", "mid_block.conv"};
  static const auto* const kAttentions =
      new std::vector<std::string>{"down_blocks.1.attentions.0.attn2", "mid_block.attn2"};
  return RequestLimits{
      .native_size = 128, .max_clip_skip = 2, .unet_modules = *kModules, .cross_attentions = *kAttentions};
}

std::vector<std::string> BadFields(const ImageRequest& request) {
  const auto job = ValidateImageRequest(request, TinyLimits());
  EXPECT_FALSE(job.ok());
  EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
  const ErrorDetails details = GetErrorDetails(job.status());
  EXPECT_EQ(details.reason, "INVALID_REQUEST");
  std::vector<std::string> fields;
  for (const FieldViolation& violation : details.violations) {
    fields.push_back(violation.field);
  }
  return fields;
}

TEST(ValidateImageRequestTest, FillsInDefaults) {
  ImageRequest request;
  request.prompt = "a fox";
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->denoise.width, 128u);
  EXPECT_EQ(job->denoise.height, 128u);
  EXPECT_EQ(job->denoise.steps, 30u);
  EXPECT_EQ(job->denoise.guidance_scale, 5.0);
  EXPECT_TRUE(job->denoise.cfg());
  EXPECT_EQ(job->prompts.prompt_2, "a fox");
  EXPECT_FALSE(job->prompts.negative_prompt.has_value());
  EXPECT_THAT(job->denoise.size_ids, ElementsAre(128, 128, 0, 0, 128, 128));
  EXPECT_EQ(job->denoise.negative_size_ids, job->denoise.size_ids);
  EXPECT_LT(job->seed, uint64_t{1} << 32);
  EXPECT_EQ(job->request_id.size(), 32u);
}

TEST(ValidateImageRequestTest, SizeIdsAreHeightFirst) {
  ImageRequest request;
  request.width = 64;
  request.height = 96;
  request.size_conditioning = SizeConditioning{.original_width = 640, .crop_left = 7};
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok());
  EXPECT_THAT(job->denoise.size_ids, ElementsAre(96, 640, 0, 7, 96, 64));
  EXPECT_THAT(job->denoise.negative_size_ids, ElementsAre(96, 640, 0, 7, 96, 64));
}

TEST(ValidateImageRequestTest, ReportsEveryBadFieldAtOnce) {
  ImageRequest request;
  request.request_id = std::string(65, 'x');
  request.prompt = std::string(kMaxPromptBytes + 1, 'a');
  request.width = 63;
  request.height = 8192;
  request.steps = 0;
  request.guidance_scale = std::numeric_limits<double>::quiet_NaN();
  request.guidance_rescale = 1.5;
  request.num_images = 17;
  request.clip_skip = 3;
  request.quality = 0;
  request.sampler = Sampler::kDdim;
  request.schedule = NoiseScheduleKind::kKarras;
  request.adapters = {{"../up", 11.0, std::nullopt}};
  EXPECT_THAT(
      BadFields(request),
      UnorderedElementsAre("request_id", "prompt", "width", "height", "steps", "guidance_scale", "guidance_rescale",
                           "num_images", "clip_skip", "quality", "schedule", "adapters[0].name", "adapters[0].weight"));
}

TEST(ValidateImageRequestTest, NamesTheTextWhoseWeightsAreNoNumbers) {
  ImageRequest request;
  request.prompt_syntax = PromptSyntax::kWeighted;
  request.prompt = "(a:1.2.3)";
  EXPECT_THAT(BadFields(request), ElementsAre("prompt"));
  request.negative_prompt = "(b:.)";
  EXPECT_THAT(BadFields(request), ElementsAre("prompt", "negative_prompt"));
  request.prompt = "a";
  request.prompt_2 = "(c:1..)";
  request.negative_prompt = "";
  request.negative_prompt_2 = "[(d:..1)]";
  EXPECT_THAT(BadFields(request), ElementsAre("prompt_2", "negative_prompt_2"));
  EXPECT_THAT(std::string(ValidateImageRequest(request, TinyLimits()).status().message()),
              HasSubstr("prompt_2 has the weight \"1..\", which is not a number"));
  request.prompt = "(a:101)";
  EXPECT_THAT(BadFields(request), ElementsAre("prompt", "prompt_2", "negative_prompt_2"));
  request.prompt_syntax = PromptSyntax::kPlain;
  EXPECT_TRUE(ValidateImageRequest(request, TinyLimits()).ok());
  // Tags are cut out first.
  request = {};
  request.prompt_syntax = PromptSyntax::kWeighted;
  request.lora_tags = true;
  request.prompt = "(a <lora:ink:1>:1.5)";
  EXPECT_TRUE(ValidateImageRequest(request, TinyLimits()).ok());
}

TEST(ValidateImageRequestTest, GuidanceRunsInsideItsWindow) {
  ImageRequest request;
  EXPECT_TRUE(ValidateImageRequest(request, TinyLimits())->denoise.cfg_at(0, 1));
  request.guidance_start = 0.25;
  request.guidance_end = 0.5;
  const DenoiseOptions options = ValidateImageRequest(request, TinyLimits())->denoise;
  std::vector<bool> guided;
  for (uint32_t step = 0; step < 8; ++step) {
    guided.push_back(options.cfg_at(step, 8));
  }
  EXPECT_THAT(guided, ElementsAre(false, false, true, true, false, false, false, false));
  request.guidance_end = 0.25;
  EXPECT_THAT(BadFields(request), ElementsAre("guidance_start"));
  request.guidance_start = -0.5;
  request.guidance_end = 1.5;
  EXPECT_THAT(BadFields(request), UnorderedElementsAre("guidance_start", "guidance_end"));
}

TEST(ValidateImageRequestTest, RefusesSchedulesThatTheSamplerDoesNotHave) {
  using Kind = NoiseScheduleKind;
  const std::set<Kind> own = {Kind::kDefault};
  const std::set<Kind> spaced = {Kind::kDefault, Kind::kTrailing};
  const std::set<Kind> spread = {Kind::kDefault, Kind::kTrailing, Kind::kKarras, Kind::kExponential, Kind::kBeta};
  std::set<Kind> uniform = spread, lu = spread, all = spread;
  uniform.insert({Kind::kAys, Kind::kSgmUniform});
  lu.insert(Kind::kLu);
  all.insert({Kind::kAys, Kind::kSgmUniform, Kind::kLu});
  const std::pair<Sampler, std::set<Kind>> samplers[] = {{Sampler::kEuler, uniform},
                                                         {Sampler::kEulerAncestral, uniform},
                                                         {Sampler::kHeun, spread},
                                                         {Sampler::kDdim, spaced},
                                                         {Sampler::kDpmpp2M, all},
                                                         {Sampler::kDpmpp2MSde, all},
                                                         {Sampler::kUniPc, spread},
                                                         {Sampler::kLcm, own},
                                                         {Sampler::kTcd, own},
                                                         {Sampler::kDpm2, spread},
                                                         {Sampler::kDpm2Ancestral, spread},
                                                         {Sampler::kLms, spread},
                                                         {Sampler::kDeis, spread},
                                                         {Sampler::kDpmpp2S, spread},
                                                         {Sampler::kDpmpp3M, lu},
                                                         {Sampler::kDpmpp3MSde, all}};
  static_assert(std::size(samplers) == kEnumSize<Sampler>);
  for (const auto& [sampler, allowed] : samplers) {
    for (size_t i = 0; i < kEnumSize<Kind>; ++i) {
      const Kind kind = static_cast<Kind>(i);
      ImageRequest request;
      request.sampler = sampler;
      request.schedule = kind;
      const auto job = ValidateImageRequest(request, TinyLimits());
      EXPECT_EQ(job.ok(), allowed.count(kind) > 0) << static_cast<int>(sampler) << " " << i;
      if (!job.ok()) {
        EXPECT_THAT(BadFields(request), ElementsAre("schedule"));
        EXPECT_THAT(std::string(job.status().message()), HasSubstr("allowed: NOISE_SCHEDULE_DEFAULT"));
      }
    }
  }
  ImageRequest request;
  request.sampler = Sampler::kDdim;
  request.schedule = Kind::kSgmUniform;
  EXPECT_THAT(std::string(ValidateImageRequest(request, TinyLimits()).status().message()),
              HasSubstr("schedule is NOISE_SCHEDULE_SGM_UNIFORM, which SAMPLER_DDIM does not have; allowed: "
                        "NOISE_SCHEDULE_DEFAULT, NOISE_SCHEDULE_TRAILING"));
}

TEST(ValidateImageRequestTest, RefusesMoreStepsThanADistillationHad) {
  for (const Sampler sampler : {Sampler::kLcm, Sampler::kTcd}) {
    ImageRequest request;
    request.sampler = sampler;
    request.steps = kMaxDistilledSteps;
    EXPECT_TRUE(ValidateImageRequest(request, TinyLimits()).ok());
    request.steps = kMaxDistilledSteps + 1;
    EXPECT_THAT(BadFields(request), ElementsAre("steps"));
  }
}

TEST(ValidateImageRequestTest, EtaIsTcdsAndDdimsAlone) {
  ImageRequest request;
  request.sampler = Sampler::kTcd;
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits())->denoise.eta, 0.3);
  request.eta = 0.0;
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits())->denoise.eta, 0.0);
  request.sampler = Sampler::kDdim;
  request.eta.reset();
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits())->denoise.eta, 0.0);
  request.eta = 1.0;
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits())->denoise.eta, 1.0);
  for (const double bad : {-0.1, 1.1, std::nan(""), HUGE_VAL}) {
    request.eta = bad;
    EXPECT_THAT(BadFields(request), ElementsAre("eta")) << bad;
  }
  request.eta = 0.0;
  for (const Sampler sampler : AllOf<Sampler>()) {
    request.sampler = sampler;
    const bool has = sampler == Sampler::kTcd || sampler == Sampler::kDdim;
    EXPECT_EQ(ValidateImageRequest(request, TinyLimits()).ok(), has) << static_cast<int>(sampler);
  }
  request.sampler.reset();
  EXPECT_THAT(BadFields(request), ElementsAre("eta"));
}

TEST(ValidateImageRequestTest, NamesTheValueAndTheAllowedRange) {
  ImageRequest request;
  request.width = 63;
  const auto job = ValidateImageRequest(request, TinyLimits());
  EXPECT_THAT(std::string(job.status().message()),
              HasSubstr("width is 63; allowed are multiples of 8 from 16 to 4096"));
}

TEST(ValidateImageRequestTest, RefusesTooManyPixels) {
  ImageRequest request;
  request.width = 4096;
  request.height = 1032;
  EXPECT_THAT(BadFields(request), ElementsAre("width"));
  request.height = 1024;
  EXPECT_TRUE(ValidateImageRequest(request, TinyLimits()).ok());
}

TEST(ValidateImageRequestTest, TagsAreTextUnlessTheyAreAskedFor) {
  ImageRequest request;
  request.prompt = "a fox <lora:ink:0.5>";
  request.adapters = {{"neon"}};
  const auto plain = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->prompts.prompt, request.prompt);
  EXPECT_EQ(plain->adapters.size(), 1u);
  request.lora_tags = true;
  const auto tagged = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(tagged.ok()) << tagged.status();
  EXPECT_EQ(tagged->prompts.prompt, "a fox ");
  EXPECT_EQ(tagged->prompts.prompt_2, "a fox ");
  ASSERT_EQ(tagged->adapters.size(), 2u);
  EXPECT_EQ(tagged->adapters[0].name, "neon");
  EXPECT_EQ(tagged->adapters[1].name, "ink");
  EXPECT_EQ(tagged->adapters[1].weight, 0.5);
  EXPECT_EQ(tagged->adapters[1].text_encoder_weight, 0.5);
  request.prompt_2 = "two <lora:oil:0.25:0.75>";
  request.negative_prompt = "<lora:blur:1>";
  const auto second = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->prompts.prompt_2, "two ");
  EXPECT_EQ(second->prompts.negative_prompt, "<lora:blur:1>");
  EXPECT_EQ(second->adapters.back().weight, 0.75);
  EXPECT_EQ(second->adapters.back().text_encoder_weight, 0.25);
}

TEST(ValidateImageRequestTest, RefusesTagsThatNoAdapterCouldBe) {
  ImageRequest request;
  request.lora_tags = true;
  request.adapters = {{"ink"}};
  for (const char* prompt : {"<lora:ink:1>", "<lora:a:1><lora:a:1>", "<lora:a:11>", "<lora:a:nan>", "<lora:a:x>",
                             "<lora:../a:1>", "<lora:a:dyn=4>"}) {
    request.prompt = prompt;
    EXPECT_THAT(BadFields(request), testing::Contains("prompt")) << prompt;
  }
  request.prompt.clear();
  for (char name = 'a'; name < 'q'; ++name) {  // 16 beside the one of the list
    request.prompt += std::string("<lora:") + name + ":1>";
  }
  EXPECT_THAT(BadFields(request), ElementsAre("adapters"));
}

TEST(ValidateImageRequestTest, EmbeddingsHaveATokenEach) {
  ImageRequest request;
  request.embeddings = {{"styles/ink"}, {"neon", "<s0>"}};
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->embeddings.size(), 2u);
  EXPECT_EQ(job->embeddings[0].token, "styles/ink");
  EXPECT_EQ(job->embeddings[1].token, "<s0>");
  request.embeddings = {{"../a"}, {"a", ""}, {"b", "two words"}, {"c", "(c)"}, {"d"}, {"d", "e"}, {"f", "D"}};
  EXPECT_THAT(BadFields(request),
              UnorderedElementsAre("embeddings[0].name", "embeddings[1].token", "embeddings[2].token",
                                   "embeddings[3].token", "embeddings[5].name", "embeddings[6].token"));
  request.embeddings.assign(17, {"a"});
  EXPECT_THAT(BadFields(request), ElementsAre("embeddings"));
}

TEST(ValidateImageRequestTest, RefusesTheSameAdapterTwiceAndMoreThanSixteen) {
  ImageRequest request;
  request.adapters = {{"a", 1.0, {}}, {"a", 0.5, {}}};
  EXPECT_THAT(BadFields(request), ElementsAre("adapters[1].name"));
  request.adapters.assign(17, {"a", 1.0, {}});
  EXPECT_THAT(BadFields(request), ElementsAre("adapters"));
}

TEST(ValidateImageRequestTest, WeightZeroIsAbsentAndTextWeightFollowsWeight) {
  ImageRequest request;
  request.adapters = {{"zero", 0.0, {}}, {"half", 0.5, {}}, {"text-only", 0.0, 2.0}, {"minus", -1.0, {}}};
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok());
  ASSERT_EQ(job->adapters.size(), 3u);
  EXPECT_EQ(job->adapters[0].name, "half");
  EXPECT_EQ(job->adapters[0].text_encoder_weight, 0.5);
  EXPECT_EQ(job->adapters[1].text_encoder_weight, 2.0);
  EXPECT_EQ(job->adapters[2].weight, -1.0);
}

AdapterRef Ranged(const char* name, double start, double end) {
  AdapterRef ref;
  ref.name = name;
  ref.start = start;
  ref.end = end;
  return ref;
}

AdapterRef Blocks(const char* name, double weight, std::vector<BlockWeight> blocks) {
  AdapterRef ref;
  ref.name = name;
  ref.weight = weight;
  ref.blocks = std::move(blocks);
  return ref;
}

TEST(ValidateImageRequestTest, AdaptersByRangeAndBlock) {
  ImageRequest request;
  request.adapters = {Ranged("first", 0.0, 0.5), Ranged("rest", 0.5, 1.0),
                      Blocks("blocks", 0.25, {{"mid_block", -10.0}, {"down_blocks.1", 0.5}, {"conv_in", 0.0}})};
  request.adapters[1].end = std::nullopt;
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->adapters.size(), 3u);
  EXPECT_EQ(job->adapters[0].range.end, 0.5);
  EXPECT_EQ(job->adapters[1].range.start, 0.5);
  EXPECT_EQ(job->adapters[1].range.end, 1.0);
  EXPECT_TRUE(job->adapters[2].range.whole());
  std::vector<std::string> prefixes;
  for (const BlockWeight& block : job->adapters[2].blocks) {
    prefixes.push_back(block.prefix);
  }
  EXPECT_THAT(prefixes, ElementsAre("conv_in", "down_blocks.1", "mid_block")) << "in any order, it is the same request";
  EXPECT_EQ(job->adapters[2].blocks[2].weight, -10.0);
}

TEST(ValidateImageRequestTest, NamesEveryBadRangeAndBlock) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinite = std::numeric_limits<double>::infinity();
  ImageRequest request;
  request.adapters = {
      Ranged("a", -0.1, 1.5),
      Ranged("b", nan, infinite),
      Ranged("c", 0.5, 0.5),
      Ranged("d", 1.0, 1.0),
      Blocks("e", 1.0, {{"", 1.0}, {"down_blocks", 10.5}, {"down_blocks", nan}, {"down_blocks.100", 1.0}}),
      Blocks("f", 1.0, {{"conv", -infinite}, {"mid_block.", 1.0}, {"conv_in", 1.0}})};
  EXPECT_THAT(BadFields(request), UnorderedElementsAre("adapters[0].start", "adapters[0].end", "adapters[1].start",
                                                       "adapters[1].end", "adapters[2].start", "adapters[3].start",
                                                       "adapters[4].blocks[0].prefix", "adapters[4].blocks[1].weight",
                                                       "adapters[4].blocks[2].prefix", "adapters[4].blocks[2].weight",
                                                       "adapters[4].blocks[3].prefix", "adapters[5].blocks[0].prefix",
                                                       "adapters[5].blocks[0].weight", "adapters[5].blocks[1].prefix"));
  const std::string message(ValidateImageRequest(request, TinyLimits()).status().message());
  EXPECT_THAT(message, HasSubstr("adapters[0].end is 1.5; allowed are 0 to 1"));
  EXPECT_THAT(message, HasSubstr("adapters[2].start is 0.5; it must be below adapters[2].end, which is 0.5"));
  EXPECT_THAT(message, HasSubstr("adapters[4].blocks[1].weight is 10.5; allowed are -10 to 10"));
  request.adapters = {Blocks("a", 1.0, std::vector<BlockWeight>(65, {"conv_in", 1.0}))};
  EXPECT_THAT(BadFields(request), ElementsAre("adapters[0].blocks"));
}

TEST(ValidateImageRequestTest, AnAdapterIsAbsentOnlyIfAllWeightsThatResultAreZero) {
  ImageRequest request;
  AdapterRef all_zero = Blocks("all-zero", 1.0, {{"conv_in", 0.0}, {"down_blocks", 0.0}, {"mid_block", 0.0}});
  all_zero.text_encoder_weight = 0.0;
  AdapterRef text_alone = all_zero;
  text_alone.name = "text-alone";
  text_alone.text_encoder_weight = 0.5;
  request.adapters = {all_zero, text_alone, Blocks("one-block", 0.0, {{"mid_block", 0.5}}),
                      Blocks("zero-block", 0.0, {{"mid_block", 0.0}}), Blocks("rest", 1.0, {{"down_blocks", 0.0}})};
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->adapters.size(), 3u);
  EXPECT_EQ(job->adapters[0].name, "text-alone");
  EXPECT_EQ(job->adapters[0].weight, 0.0) << "nothing of the UNet is left";
  EXPECT_TRUE(job->adapters[0].blocks.empty());
  EXPECT_EQ(job->adapters[1].name, "one-block");
  EXPECT_EQ(job->adapters[2].name, "rest");
}

TEST(ValidateImageRequestTest, ARangeWithoutEvaluationsIsAllowedAndHasNoEffect) {
  ImageRequest request;
  request.steps = 4;
  request.adapters = {Ranged("never", 0.3, 0.4), Ranged("once", 0.25, 0.5)};
  auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->adapters.size(), 1u);
  EXPECT_EQ(job->adapters[0].name, "once");
  request.sampler = Sampler::kHeun;  // of its seven evaluations the third alone lies in 0.25 to 0.5, none in 0.3 to 0.4
  job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->adapters.size(), 1u);
  request.steps = 0;
  EXPECT_THAT(BadFields(request), ElementsAre("steps"));
}

TEST(ValidateImageRequestTest, GuidanceOfOneAndBelowTurnsGuidanceOff) {
  ImageRequest request;
  request.guidance_scale = 1.0;
  EXPECT_FALSE(ValidateImageRequest(request, TinyLimits())->denoise.cfg());
}

TEST(ValidateImageRequestTest, NamesAreComparedInNormalFormC) {
  ImageRequest request;
  request.adapters = {{"cafe\u0301 (v2)"}};
  request.embeddings = {{"e\u0301", "token"}};
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->adapters[0].name, "caf\u00e9 (v2)");
  EXPECT_EQ(job->embeddings[0].name, "\u00e9");
  request.adapters = {{"caf\u00e9"}, {"cafe\u0301"}};
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits()).status().code(), absl::StatusCode::kInvalidArgument);
}

// A PNG of that size by its header; the pixels are not validation's.
std::string PngHeader(uint32_t width, uint32_t height) {
  std::string file("\x89PNG\r\n\x1a\n\0\0\0\x0DIHDR", 16);
  for (const uint32_t side : {width, height}) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      file.push_back(static_cast<char>(side >> shift));
    }
  }
  return file + std::string("\x08\x02\0\0\0crc.", 9);
}

std::string Message(const ImageRequest& request) {
  return std::string(ValidateImageRequest(request, TinyLimits()).status().message());
}

TEST(ValidateImageRequestTest, AnInitImageGivesTheSizeAndGoesThroughAPartOfTheSteps) {
  ImageRequest request;
  request.init_image = PngHeader(101, 70);
  request.preview_every = 5;
  auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->denoise.width, 96u);
  EXPECT_EQ(job->denoise.height, 64u);
  EXPECT_THAT(job->denoise.size_ids, ElementsAre(64, 96, 0, 0, 64, 96));
  EXPECT_EQ(job->denoise.strength, 0.3);
  EXPECT_EQ(job->denoise.first_step(), 21u);  // 9 of 30 are left
  EXPECT_EQ(job->denoise.preview_every, 5u);
  EXPECT_EQ(job->init_image, request.init_image);
  EXPECT_TRUE(job->has_init());

  request.mask_image = PngHeader(5, 5);
  request.width = 256;
  job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->denoise.width, 256u);
  EXPECT_EQ(job->denoise.height, 64u);
  EXPECT_EQ(job->denoise.strength, 0.9999);
  EXPECT_EQ(job->denoise.first_step(), 1u);
  request.strength = 1.0;
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits())->denoise.first_step(), 0u);
}

TEST(ValidateImageRequestTest, WithoutAnInitImageAllStepsRun) {
  const auto job = ValidateImageRequest({}, TinyLimits());
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->denoise.first_step(), 0u);
  EXPECT_FALSE(job->denoise.preview_at(1));
}

TEST(ValidateImageRequestTest, RefusesFilesThatAreNoImages) {
  ImageRequest request;
  request.init_image = "GIF89a";
  request.mask_image = PngHeader(9000, 9000);
  request.width = 65;
  EXPECT_THAT(BadFields(request), UnorderedElementsAre("init_image", "mask_image", "width"));
  EXPECT_THAT(Message(request), HasSubstr("init_image is not a PNG, JPEG or WebP file"));
  EXPECT_THAT(Message(request), HasSubstr("mask_image is 9000x9000 pixels; allowed are 1 to 8192 on a side"));
}

ControlRef Control(std::optional<double> start = std::nullopt, std::optional<double> end = std::nullopt) {
  ControlRef control;
  control.name = "lines";
  control.image = PngHeader(64, 64);
  control.start = start;
  control.end = end;
  return control;
}

TEST(ValidateImageRequestTest, ControlsHaveDefaultsAndANameMayComeAgain) {
  ImageRequest request;
  request.controls = {Control(), Control(0.25, 0.5)};
  request.controls[1].scale = 0.0;
  request.controls[1].type = 7;
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->controls.size(), 2u);
  EXPECT_EQ(job->controls[0].scale, 1.0);
  EXPECT_TRUE(job->controls[0].range.whole());
  EXPECT_FALSE(job->controls[0].type.has_value());
  EXPECT_EQ(job->controls[1].scale, 0.0);
  EXPECT_EQ(job->controls[1].range.start, 0.25);
  EXPECT_EQ(job->controls[1].type, 7u);
  EXPECT_TRUE(job->has_pictures());
  EXPECT_FALSE(job->has_init());
}

TEST(ValidateImageRequestTest, AControlThatIsNeverInForceIsLeftOut) {
  ImageRequest request;
  request.steps = 4;
  request.controls = {Control(0.1, 0.2), Control()};
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->controls.size(), 1u);
  EXPECT_EQ(job->controls[0].field, "controls[1]");
}

TEST(ValidateImageRequestTest, NamesEveryBadFieldOfControls) {
  ImageRequest request;
  request.controls = {Control(0.5, 0.5), Control(std::nan(""), 1.5), Control(), Control()};
  request.controls[2].name = "../up";
  request.controls[2].image = "";
  request.controls[2].scale = 4.5;
  request.controls[3].image = "GIF89a";
  request.controls[3].scale = std::nan("");
  EXPECT_THAT(BadFields(request),
              UnorderedElementsAre("controls[0].start", "controls[1].start", "controls[1].end", "controls[2].name",
                                   "controls[2].image", "controls[2].scale", "controls[3].image", "controls[3].scale"));
  EXPECT_THAT(Message(request), HasSubstr("controls[2].scale is 4.5; allowed are 0 to 4"));
  request.controls = {Control()};
  request.controls[0].image = PngHeader(9000, 9000);
  EXPECT_THAT(Message(request), HasSubstr("controls[0].image is 9000x9000 pixels; allowed are 1 to 8192 on a side"));
  request.controls.assign(5, Control());
  EXPECT_THAT(BadFields(request), ElementsAre("controls"));
}

ImagePromptRef ImagePrompt(const std::string& name, std::optional<double> scale = std::nullopt) {
  ImagePromptRef prompt;
  prompt.name = name;
  prompt.images = {PngHeader(64, 64)};
  prompt.scale = scale;
  return prompt;
}

TEST(ValidateImageRequestTest, ImagePromptsHaveDefaults) {
  ImageRequest request;
  request.image_prompts = {ImagePrompt("style"), ImagePrompt("subject", 0.0)};
  request.image_prompts[1].images.assign(4, PngHeader(64, 64));
  request.image_prompts[1].blocks = {{"mid_block", 4.0}, {"down_blocks.1", 0.5}};
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->image_prompts.size(), 2u);
  EXPECT_EQ(job->image_prompts[0].scale, 1.0);
  EXPECT_EQ(job->image_prompts[1].images.size(), 4u);
  EXPECT_EQ(job->image_prompts[1].blocks[0].prefix, "down_blocks.1") << "sorted";
  EXPECT_EQ(job->image_prompts[1].field, "image_prompts[1]");
  EXPECT_TRUE(job->has_pictures());
}

TEST(ValidateImageRequestTest, AnImagePromptThatNoCrossAttentionSeesIsLeftOut) {
  ImageRequest request;
  request.image_prompts = {ImagePrompt("style", 0.0), ImagePrompt("subject")};
  request.image_prompts[1].blocks = {{"mid_block", 0.0}, {"down_blocks", 0.0}};
  const auto none = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->image_prompts.empty());
  request.image_prompts[1].blocks.pop_back();
  const auto one = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_EQ(one->image_prompts.size(), 1u);
  EXPECT_EQ(one->image_prompts[0].field, "image_prompts[1]");
}

TEST(ValidateImageRequestTest, NamesEveryBadFieldOfImagePrompts) {
  ImageRequest request;
  request.image_prompts = {ImagePrompt("../up", std::nan("")), ImagePrompt("style", 4.5)};
  request.image_prompts[0].images = {PngHeader(64, 64), "", "GIF89a"};
  request.image_prompts[1].images.clear();
  request.image_prompts[1].blocks = {{"", 1.0},
                                     {"mid_block", 1.0},
                                     {"mid_block", 1.0},
                                     {"down_blocks.10", 1.0},
                                     {"mid_block.attn2", -0.5},
                                     {"conv_in", std::nan("")}};
  EXPECT_THAT(BadFields(request),
              UnorderedElementsAre("image_prompts[0].name", "image_prompts[0].scale", "image_prompts[0].images[1]",
                                   "image_prompts[0].images[2]", "image_prompts[1].scale", "image_prompts[1].images",
                                   "image_prompts[1].blocks[0].prefix", "image_prompts[1].blocks[2].prefix",
                                   "image_prompts[1].blocks[3].prefix", "image_prompts[1].blocks[4].weight",
                                   "image_prompts[1].blocks[5].prefix", "image_prompts[1].blocks[5].weight"));
  EXPECT_THAT(Message(request), HasSubstr("image_prompts[1].images has 0 entries; allowed are 1 to 4"));
  EXPECT_THAT(Message(request), HasSubstr("image_prompts[1].blocks[4].weight is -0.5; allowed are 0 to 4"));
  EXPECT_THAT(Message(request), HasSubstr("names of the UNet's cross attentions"));
  request.image_prompts = {ImagePrompt("style"), ImagePrompt("style")};
  EXPECT_THAT(BadFields(request), ElementsAre("image_prompts[1].name"));
  request.image_prompts.assign(3, ImagePrompt("style"));
  EXPECT_THAT(BadFields(request), ElementsAre("image_prompts"));
  request.image_prompts = {ImagePrompt("style")};
  request.image_prompts[0].blocks.assign(65, {"mid_block", 1.0});
  request.image_prompts[0].images.assign(5, PngHeader(64, 64));
  EXPECT_THAT(BadFields(request), UnorderedElementsAre("image_prompts[0].blocks", "image_prompts[0].images"));
}

TEST(CheckControlTypesTest, AUnionNetNeedsOneOfItsTypesAndOthersHaveNone) {
  std::vector<ControlUse> controls(4);
  for (size_t i = 0; i < controls.size(); ++i) {
    controls[i].name = "net";
    controls[i].field = "controls[" + std::to_string(i) + "]";
  }
  controls[0].type = 0;  // of a net of one kind
  controls[2].type = 6;
  controls[3].type = 5;
  const absl::Status status = CheckControlTypes(controls, {0, 6, 6, 6});
  std::vector<std::string> fields;
  for (const FieldViolation& violation : GetErrorDetails(status).violations) {
    fields.push_back(violation.field);
  }
  EXPECT_THAT(fields, ElementsAre("controls[0].type", "controls[1].type", "controls[2].type"));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("controls[2].type is 6; allowed with the union net \"net\" are 0 to 5"));
  controls[0].type.reset();
  controls[1].type = controls[2].type = 0;
  EXPECT_EQ(CheckControlTypes(controls, {0, 6, 6, 6}), absl::OkStatus());
}

TEST(ValidateImageRequestTest, MaskAndStrengthNeedAnInitImage) {
  ImageRequest request;
  request.mask_image = PngHeader(8, 8);
  request.strength = 0.5;
  EXPECT_THAT(BadFields(request), UnorderedElementsAre("mask_image", "strength"));
}

TEST(ValidateImageRequestTest, StrengthLeavesAtLeastOneStep) {
  ImageRequest request;
  request.init_image = PngHeader(64, 64);
  for (const double bad :
       {0.0, -0.1, 1.001, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    request.strength = bad;
    EXPECT_THAT(BadFields(request), ElementsAre("strength")) << bad;
  }
  request.strength = 0.3;
  request.steps = 3;
  EXPECT_THAT(BadFields(request), ElementsAre("strength"));
  EXPECT_THAT(Message(request), HasSubstr("strength of 0.3 leaves none of 3 steps"));
  request.steps = 4;
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits())->denoise.first_step(), 3u);
}

TEST(ValidateImageRequestTest, AnInitImageOfNoSizeToPaintInNeedsWidthAndHeight) {
  ImageRequest request;
  for (const auto& [width, height] : {std::pair(3000u, 2000u), {4104u, 16u}, {15u, 64u}}) {
    request.init_image = PngHeader(width, height);
    request.width = request.height = std::nullopt;
    EXPECT_THAT(BadFields(request), ElementsAre("init_image"));
    EXPECT_THAT(Message(request), HasSubstr("set width and height"));
    request.width = request.height = 128;
    EXPECT_TRUE(ValidateImageRequest(request, TinyLimits()).ok());
  }
}

TEST(ValidateImageRequestTest, ASecondPassIsLargerAndElseTheSame) {
  ImageRequest request;
  request.width = 104;
  request.height = 136;
  request.steps = 20;
  request.preview_every = 3;
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits())->hires, std::nullopt);
  request.hires.emplace();
  const auto job = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->denoise.width, 104u);
  EXPECT_EQ(job->denoise.strength, 1.0);
  EXPECT_EQ(job->hires_scale, 2.0);
  EXPECT_EQ(job->hires->width, 208u);
  EXPECT_EQ(job->hires->height, 272u);
  EXPECT_EQ(job->hires->steps, 20u);
  EXPECT_EQ(job->hires->strength, 0.5);
  EXPECT_EQ(job->hires->steps_run(), 10u);
  EXPECT_EQ(job->hires->preview_every, 3u);
  EXPECT_THAT(job->hires->size_ids, ElementsAre(272, 208, 0, 0, 272, 208));
  EXPECT_THAT(job->denoise.size_ids, ElementsAre(136, 104, 0, 0, 136, 104));

  request.hires->scale = 1.5;
  request.hires->steps = 7;
  request.hires->strength = 1.0;
  request.size_conditioning.emplace();
  request.size_conditioning->original_width = 512;
  const auto with_fields = ValidateImageRequest(request, TinyLimits());
  ASSERT_TRUE(with_fields.ok()) << with_fields.status();
  EXPECT_EQ(with_fields->hires->width, 152u) << "156, rounded down";
  EXPECT_EQ(with_fields->hires->height, 200u) << "204, rounded down";
  EXPECT_EQ(with_fields->hires->steps_run(), 7u);
  EXPECT_THAT(with_fields->hires->size_ids, ElementsAre(200, 512, 0, 0, 200, 152))
      << "what is set holds in both passes";
}

// 640 x 1.1 is 704, though 1.1 is a little less in binary.
TEST(ValidateImageRequestTest, ALargerSideThatIsWholeIsNotRoundedDown) {
  ImageRequest request;
  request.width = request.height = 640;
  request.hires.emplace();
  request.hires->scale = 1.1;
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits())->hires->width, 704u);
}

TEST(ValidateImageRequestTest, NamesEveryBadFieldOfASecondPass) {
  ImageRequest request;
  request.hires.emplace();
  request.hires->scale = 1.0;
  request.hires->strength = 0.0;
  request.hires->steps = 1001;
  EXPECT_THAT(BadFields(request), UnorderedElementsAre("hires.scale", "hires.strength", "hires.steps"));
  for (const double bad : {4.1, -2.0, std::nan("")}) {
    request.hires.emplace();
    request.hires->scale = bad;
    EXPECT_THAT(BadFields(request), ElementsAre("hires.scale")) << bad;
    request.hires.emplace();
    request.hires->strength = bad;
    EXPECT_THAT(BadFields(request), ElementsAre("hires.strength")) << bad;
  }
  request.hires.emplace();
  request.hires->steps = 1;
  EXPECT_THAT(BadFields(request), ElementsAre("hires.strength"));
  EXPECT_THAT(Message(request), HasSubstr("hires.strength of 0.5 leaves none of 1 steps"));

  request.hires.emplace();
  request.width = request.height = 1536;
  EXPECT_THAT(BadFields(request), ElementsAre("hires.scale"));
  EXPECT_THAT(Message(request), HasSubstr("hires.scale of 2 makes 3072x3072 pixels"));

  request = {};
  request.sampler = Sampler::kLcm;
  request.steps = 8;
  request.hires.emplace();
  request.hires->steps = 51;
  EXPECT_THAT(BadFields(request), ElementsAre("hires.steps"));
}

TEST(ValidateImageRequestTest, AnAdapterThatIsInForceInThatPassAloneStays) {
  ImageRequest request;
  request.steps = 2;
  request.adapters = {{"a", 1.0, {}}};
  request.adapters[0].start = 0.25;
  request.adapters[0].end = 0.5;
  EXPECT_TRUE(ValidateImageRequest(request, TinyLimits())->adapters.empty());
  request.hires.emplace();
  request.hires->steps = 8;
  EXPECT_EQ(ValidateImageRequest(request, TinyLimits())->adapters.size(), 1u);
}

TEST(ValidateImageRequestTest, PreviewsAreAtMostAsFarApartAsStepsMayBeMany) {
  ImageRequest request;
  request.preview_every = 1001;
  EXPECT_THAT(BadFields(request), ElementsAre("preview_every"));
}

}  // namespace
}  // namespace hotlora
