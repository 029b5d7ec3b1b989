#include "src/sampling/scheduler_config.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/json_text.h"

namespace hotlora {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(SchedulerConfigTest, ReadsWhatSdxlShips) {
  const auto config = ParseSchedulerConfig(json::parse(R"({
    "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": false, "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
    "sample_max_value": 1.0, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
    "timestep_spacing": "leading", "trained_betas": null, "use_karras_sigmas": false})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->num_train_timesteps, 1000);
  EXPECT_EQ(config->beta_start, 0.00085);
  EXPECT_EQ(config->beta_end, 0.012);
  EXPECT_EQ(config->beta_schedule, BetaSchedule::kScaledLinear);
  EXPECT_EQ(config->prediction, Prediction::kEpsilon);
  EXPECT_EQ(config->timestep_spacing, TimestepSpacing::kLeading);
  EXPECT_EQ(config->sigma_spacing, SigmaSpacing::kTimesteps);
  EXPECT_EQ(config->steps_offset, 1);
  EXPECT_FALSE(config->rescale_betas_zero_snr);
  EXPECT_FALSE(config->set_alpha_to_one);
  EXPECT_FALSE(config->clip.has_value());
  EXPECT_TRUE(config->trained_betas.empty());
}

TEST(SchedulerConfigTest, ReadsTheRest) {
  const auto config = ParseSchedulerConfig(json::parse(R"({
    "num_train_timesteps": 3, "trained_betas": [0.1, 0.2, 0.3], "prediction_type": "v_prediction",
    "timestep_spacing": "trailing", "use_exponential_sigmas": true, "rescale_betas_zero_snr": true,
    "clip_sample": true, "clip_sample_range": 2, "set_alpha_to_one": true, "thresholding": false,
    "original_inference_steps": 50, "timestep_scaling": 10.0,
    "final_sigmas_type": "sigma_min", "sigma_min": 0.03, "sigma_max": 14, "beta_schedule": "squaredcos_cap_v2"})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->trained_betas, testing::ElementsAre(0.1f, 0.2f, 0.3f));
  EXPECT_EQ(config->prediction, Prediction::kV);
  EXPECT_EQ(config->timestep_spacing, TimestepSpacing::kTrailing);
  EXPECT_EQ(config->sigma_spacing, SigmaSpacing::kExponential);
  EXPECT_EQ(config->beta_schedule, BetaSchedule::kSquaredCosine);
  EXPECT_TRUE(config->rescale_betas_zero_snr);
  EXPECT_TRUE(config->final_sigma_min);
  EXPECT_EQ(config->clip, 2.0f);
  EXPECT_TRUE(config->set_alpha_to_one);
  EXPECT_EQ(config->sigma_min, 0.03);
  EXPECT_EQ(config->sigma_max, 14.0);
}

TEST(SchedulerConfigTest, NamesTheKeyAndValueThatItRefuses) {
  const std::pair<const char*, const char*> cases[] = {
      {"prediction_type", "\"flow_prediction\""},
      {"prediction_type", "1"},
      {"beta_schedule", "\"sigmoid\""},
      {"timestep_spacing", "\"middle\""},
      {"timestep_type", "\"continuous\""},
      {"interpolation_type", "\"log_linear\""},
      {"final_sigmas_type", "\"one\""},
      {"num_train_timesteps", "0"},
      {"num_train_timesteps", "1000.5"},
      {"num_train_timesteps", "99999999999999999999"},
      {"steps_offset", "-1"},
      {"beta_start", "0"},
      {"beta_end", "1.0"},
      {"beta_end", "\"0.012\""},
      {"trained_betas", "[0.1]"},
      {"sigma_max", "-2"},
      {"use_karras_sigmas", "\"yes\""},
      {"use_beta_sigmas", "true"},
      {"use_flow_sigmas", "true"},
      {"use_lu_lambdas", "true"},
      {"thresholding", "true"},
      {"clip_sample", "1"},
      {"clip_sample_range", "0"},
      {"set_alpha_to_one", "\"no\""},
      {"original_inference_steps", "100"},
      {"timestep_scaling", "1"},
      {"_class_name", "\"EDMEulerScheduler\""},
      {"_class_name", "\"FlowMatchEulerDiscreteScheduler\""},
  };
  for (const auto& [key, value] : cases) {
    const auto config = ParseSchedulerConfig(json::object({{key, json::parse(value)}}));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kFailedPrecondition) << key << value;
    EXPECT_THAT(config.status().message(), AllOf(HasSubstr(key), HasSubstr("allowed"))) << value;
  }
  EXPECT_FALSE(ParseSchedulerConfig(json::parse(R"({"use_karras_sigmas":true,"use_exponential_sigmas":true})")).ok());
  EXPECT_FALSE(ParseSchedulerConfig(json::array()).ok());
  EXPECT_TRUE(ParseSchedulerConfig(json::object()).ok());
  EXPECT_EQ(ParseSchedulerConfig(json::parse(R"({"prediction_type": "sample"})"))->prediction, Prediction::kSample);
}

constexpr const char* kOddValues[] = {"NaN", "Infinity", "-Infinity", "1e999", "\"text\"", "{}", "[]", "[NaN]"};

TEST(SchedulerConfigTest, EveryUsedKeyNamesFileKeyAndOddValue) {
  for (const char* const key : {"_class_name",
                                "num_train_timesteps",
                                "steps_offset",
                                "beta_start",
                                "beta_end",
                                "beta_schedule",
                                "trained_betas",
                                "prediction_type",
                                "timestep_spacing",
                                "final_sigmas_type",
                                "rescale_betas_zero_snr",
                                "set_alpha_to_one",
                                "clip_sample",
                                "clip_sample_range",
                                "use_karras_sigmas",
                                "use_exponential_sigmas",
                                "sigma_min",
                                "sigma_max",
                                "use_beta_sigmas",
                                "use_flow_sigmas",
                                "use_lu_lambdas",
                                "thresholding",
                                "original_inference_steps",
                                "timestep_scaling",
                                "timestep_type",
                                "interpolation_type"}) {
    for (const char* const odd : kOddValues) {
      if (std::string(key) == "_class_name" && std::string(odd) == "\"text\"") {
        continue;
      }
      const json config = ParseJsonObject(absl::StrCat("{\"", key, "\": ", odd, "}")).value();
      EXPECT_THAT(ParseSchedulerConfig(config).status().message(),
                  HasSubstr(absl::StrCat("scheduler_config.json: ", key, " is ", config[key].dump())));
    }
    EXPECT_TRUE(ParseSchedulerConfig(json::object({{key, nullptr}})).ok()) << key;
  }
}

// https://github.com/huggingface/diffusers/issues/10738: a DPMSolverMultistepScheduler's lambda_min_clipped.
TEST(SchedulerConfigTest, KeysWithoutMeaningStopNothing) {
  for (const char* const key :
       {"lambda_min_clipped", "dynamic_thresholding_ratio", "sample_max_value", "flow_shift", "a_key_of_next_year"}) {
    for (const char* const odd : kOddValues) {
      EXPECT_TRUE(ParseSchedulerConfig(ParseJsonObject(absl::StrCat("{\"", key, "\": ", odd, "}")).value()).ok())
          << key << odd;
    }
  }
}

}  // namespace
}  // namespace hotlora
