#include "src/request/validation.h"

#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"

namespace hotlora {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

RequestLimits TinyLimits() { return RequestLimits{.native_size = 128, .max_clip_skip = 2}; }

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
  for (const Sampler sampler : {Sampler::kEuler, Sampler::kEulerAncestral, Sampler::kHeun, Sampler::kDdim,
                                Sampler::kDpmpp2M, Sampler::kDpmpp2MSde, Sampler::kUniPc, Sampler::kLcm}) {
    for (const Kind kind : {Kind::kDefault, Kind::kKarras, Kind::kExponential, Kind::kTrailing}) {
      ImageRequest request;
      request.sampler = sampler;
      request.schedule = kind;
      const bool refused = (sampler == Sampler::kDdim && (kind == Kind::kKarras || kind == Kind::kExponential)) ||
                           (sampler == Sampler::kLcm && kind != Kind::kDefault);
      const auto job = ValidateImageRequest(request, TinyLimits());
      EXPECT_EQ(job.ok(), !refused) << static_cast<int>(sampler) << " " << static_cast<int>(kind);
      if (refused) {
        EXPECT_THAT(BadFields(request), ElementsAre("schedule"));
        EXPECT_THAT(std::string(job.status().message()), HasSubstr("NOISE_SCHEDULE_DEFAULT"));
      }
    }
  }
}

TEST(ValidateImageRequestTest, RefusesMoreLcmStepsThanTheTrainingHad) {
  ImageRequest request;
  request.sampler = Sampler::kLcm;
  request.steps = kMaxLcmSteps;
  EXPECT_TRUE(ValidateImageRequest(request, TinyLimits()).ok());
  request.steps = kMaxLcmSteps + 1;
  EXPECT_THAT(BadFields(request), ElementsAre("steps"));
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

TEST(ValidateImageRequestTest, GuidanceOfOneAndBelowTurnsGuidanceOff) {
  ImageRequest request;
  request.guidance_scale = 1.0;
  EXPECT_FALSE(ValidateImageRequest(request, TinyLimits())->denoise.cfg());
}

TEST(ValidateAdapterNameTest, AcceptsIdentifiersAndRefusesPaths) {
  for (const char* name : {"neon", "styles/neon", "v1.5_x-2", "0"}) {
    EXPECT_TRUE(ValidateAdapterName(name).ok()) << name;
  }
  for (const char* name : {"", ".", "..", "../neon", "styles/../neon", "/etc/passwd", "a//b", "a/", "a\\b", "a b",
                           ".hidden", "a/.hidden", "a.", "na\xc3\xafve", "..%2fa"}) {
    EXPECT_FALSE(ValidateAdapterName(name).ok()) << name;
  }
  EXPECT_FALSE(ValidateAdapterName(absl::string_view("a\0b", 3)).ok());
  EXPECT_FALSE(ValidateAdapterName(std::string(201, 'a')).ok());
}

}  // namespace
}  // namespace hotlora
