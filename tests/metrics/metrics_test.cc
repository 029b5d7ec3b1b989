#include "src/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace hotlora {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsTest, KnownLabelSetsStandAtZero) {
  const Metrics metrics;
  const std::string text = metrics.Render();
  EXPECT_THAT(text, HasSubstr("hotlora_requests_total{method=\"GenerateImages\",code=\"INVALID_ARGUMENT\"} 0"));
  EXPECT_THAT(text, HasSubstr("hotlora_denoise_step_duration_seconds_count{size=\"gt_2mp\",cfg=\"on\"} 0"));
  EXPECT_THAT(text, HasSubstr("hotlora_adapter_swap_duration_seconds_count{phase=\"restore\",source=\"disk\"} 0"));
  EXPECT_THAT(text, HasSubstr("hotlora_base_restore_mismatch_total 0"));
  EXPECT_THAT(text, HasSubstr("process_resident_memory_bytes "));
  EXPECT_THAT(text, HasSubstr("hotlora_nvml_up "));
}

TEST(MetricsTest, StaysUnderTwoThousandSeries) {
  const Metrics metrics;
  const std::string text = metrics.Render();
  const auto lines = std::count(text.begin(), text.end(), '\n') - 2 * (std::count(text.begin(), text.end(), '#') / 2);
  EXPECT_LT(lines, 2000);
}

TEST(MetricsTest, DriftIsAbsentUntilTheBaselineOfThatShapeIsKnown) {
  Metrics metrics;
  const StepShape shape{128, 128, 1, true};
  metrics.ObserveStep(shape, 0.2);
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("\nhotlora_step_drift_ratio ")));
  metrics.SetStepBaseline(shape, 0.1);
  metrics.ObserveStep({64, 64, 1, true}, 9.0);
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("\nhotlora_step_drift_ratio ")));
  metrics.ObserveStep(shape, 0.2);
  EXPECT_THAT(metrics.Render(), HasSubstr("\nhotlora_step_drift_ratio 2"));
  EXPECT_THAT(metrics.Render(),
              HasSubstr("hotlora_step_baseline_seconds{width=\"128\",height=\"128\",rows=\"1\",cfg=\"on\"} 0.1"));
}

TEST(MetricsTest, SizesFallIntoTheirLabel) {
  Metrics metrics;
  metrics.ObserveStep({512, 1024, 1, false}, 0.01);
  metrics.ObserveStep({1024, 1024, 1, false}, 0.01);
  metrics.ObserveStep({1032, 1024, 1, false}, 0.01);
  metrics.ObserveStep({2048, 2048, 1, false}, 0.01);
  const std::string text = metrics.Render();
  for (const char* size : {"le_0.5mp", "le_1mp", "le_2mp", "gt_2mp"}) {
    EXPECT_THAT(text, HasSubstr(std::string("hotlora_denoise_step_duration_seconds_count{size=\"") + size +
                                "\",cfg=\"off\"} 1"));
  }
}

TEST(MetricsTest, ReadsSourcesAtScrapeAndForgetsThemWhenCleared) {
  Metrics metrics;
  uint32_t depth = 3;
  metrics.SetSources({"cpu", [] { return DeviceMemory{100, 120, 0.25}; }, [&depth] { return depth; }, 64});
  EXPECT_THAT(metrics.Render(), HasSubstr("hotlora_device_memory_allocated_bytes{device=\"cpu\"} 100"));
  EXPECT_THAT(metrics.Render(), HasSubstr("hotlora_queue_depth 3"));
  depth = 4;
  EXPECT_THAT(metrics.Render(), HasSubstr("hotlora_queue_depth 4"));
  EXPECT_THAT(metrics.Render(), HasSubstr("hotlora_queue_capacity 64"));
  metrics.SetSources({});
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("hotlora_queue_depth 4")));
}

TEST(MetricsTest, CountsByOutcome) {
  Metrics metrics;
  metrics.CountRequest("GenerateImages", "OK", 1.0);
  metrics.CountRequest("GenerateImages", "CANCELLED", 1.0);
  metrics.CountRequest("GenerateImages", "NOT_FOUND", 1.0);
  const std::string text = metrics.Render();
  for (const char* outcome : {"ok", "cancelled", "error"}) {
    EXPECT_THAT(text, HasSubstr(std::string("hotlora_request_duration_seconds_count{method=\"GenerateImages\",outcome=\"") +
                                outcome + "\"} 1"));
  }
}

}  // namespace
}  // namespace hotlora
