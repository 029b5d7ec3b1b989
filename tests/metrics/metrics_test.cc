#include "src/metrics/metrics.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

// Whether the exposition has this line, or one that begins with it and ends in a value.
bool Has(const Metrics& metrics, const std::string& line) {
  return ("\n" + metrics.Render()).find("\n" + line) != std::string::npos;
}

TEST(MetricsTest, KnownLabelSetsStandAtZero) {
  const Metrics metrics;
  EXPECT_TRUE(Has(metrics, "hotlora_requests_total{code=\"INVALID_ARGUMENT\",method=\"GenerateImages\"} 0"));
  EXPECT_TRUE(Has(metrics, "hotlora_denoise_step_duration_seconds_count{cfg=\"on\",size=\"gt_2mp\"} 0"));
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_swap_duration_seconds_count{phase=\"restore\",source=\"disk\"} 0"));
  EXPECT_TRUE(Has(metrics, "hotlora_base_restore_mismatch_total 0"));
  EXPECT_TRUE(Has(metrics, "hotlora_model_files_changed 0"));
  EXPECT_TRUE(Has(metrics, "process_resident_memory_bytes "));
  EXPECT_TRUE(Has(metrics, "hotlora_nvml_up "));
}

TEST(MetricsTest, AMethodBeginsWithTheCodesThatItCanEndWith) {
  const Metrics metrics;
  const auto begins_with = [&](const std::string& method, const std::string& code) {
    return Has(metrics, absl::StrCat("hotlora_requests_total{code=\"", code, "\",method=\"", method, "\"} 0"));
  };
  for (const char* method :
       {"GenerateImages", "Txt2Img", "LoadControl", "UploadAdapter", "ListControls", "VerifyBase"}) {
    for (const char* code : {"OK", "UNAUTHENTICATED", "INTERNAL", "RESOURCE_EXHAUSTED"}) {
      EXPECT_TRUE(begins_with(method, code)) << method << " " << code;
    }
  }
  for (const char* method : {"GenerateImages", "Img2Img", "LoadAdapter", "UploadControl"}) {
    EXPECT_TRUE(begins_with(method, "CANCELLED")) << method;
    EXPECT_TRUE(begins_with(method, "FAILED_PRECONDITION")) << method;
  }
  EXPECT_TRUE(begins_with("DeleteAdapter", "ABORTED"));
  EXPECT_FALSE(begins_with("GenerateImages", "ABORTED"));
  EXPECT_FALSE(begins_with("ListAdapters", "CANCELLED"));
}

TEST(MetricsTest, ACodeThatWasNotExpectedIsCountedAllTheSame) {
  Metrics metrics;
  metrics.CountRequest("ListAdapters", "DATA_LOSS", 1.0);
  EXPECT_TRUE(Has(metrics, "hotlora_requests_total{code=\"DATA_LOSS\",method=\"ListAdapters\"} 1"));
}

TEST(MetricsTest, AnsweredCallsAndWholeSwapsHaveTheFineBuckets) {
  Metrics metrics;
  metrics.CountRequest("GenerateImages", "OK", 20.0);
  metrics.CountRequest("GenerateImages", "INTERNAL", 20.0);
  metrics.CountRequest("LoadControl", "OK", 20.0);
  metrics.CountRequest("UnloadControl", "OK", 20.0);
  const auto bucket = [&](const std::string& method, const std::string& outcome, const std::string& le) {
    return Has(metrics, absl::StrCat("hotlora_request_duration_seconds_bucket{method=\"", method, "\",outcome=\"",
                                     outcome, "\",le=\"", le, "\"} 1"));
  };
  EXPECT_TRUE(bucket("GenerateImages", "ok", "30"));
  EXPECT_FALSE(bucket("GenerateImages", "error", "30"));
  EXPECT_TRUE(bucket("GenerateImages", "error", "+Inf"));
  EXPECT_TRUE(bucket("LoadControl", "ok", "30"));
  EXPECT_FALSE(bucket("LoadControl", "ok", "60"));
  EXPECT_FALSE(bucket("UnloadControl", "ok", "30"));
  metrics.ObserveSwapPhase(SwapPhase::kTotal, AdapterTier::kHost, 0.2);
  metrics.ObserveSwapPhase(SwapPhase::kApply, AdapterTier::kHost, 0.2);
  const auto swap = [&](const std::string& phase, const std::string& le) {
    return Has(metrics, absl::StrCat("hotlora_adapter_swap_duration_seconds_bucket{phase=\"", phase,
                                     "\",source=\"host\",le=\"", le, "\"} 1"));
  };
  EXPECT_TRUE(swap("total", "0.25"));
  EXPECT_FALSE(swap("apply", "0.25"));
  EXPECT_TRUE(swap("apply", "0.5"));
}

TEST(MetricsTest, TellsWhetherTheModelsFilesChanged) {
  Metrics metrics;
  metrics.SetModelFilesChanged(true);
  EXPECT_TRUE(Has(metrics, "hotlora_model_files_changed 1"));
  metrics.SetModelFilesChanged(false);
  EXPECT_TRUE(Has(metrics, "hotlora_model_files_changed 0"));
}

TEST(MetricsTest, TenThousandAdaptersStayUnderTwoThousandSeriesAnd256KiB) {
  Metrics metrics;
  GaugeSources sources;
  sources.device_memory = [] { return MemoryStats{}; };
  sources.queue_depth = [] { return 0; };
  sources.adapters_folder = "/";
  metrics.SetSources(std::move(sources));
  for (int i = 0; i < 10'000; ++i) {
    metrics.calls().CountAdapterUse({"styles/of-the-season/adapter-" + std::to_string(i)});
  }
  EXPECT_LE(metrics.Render().size(), 256u << 10);
  const std::string text = metrics.Render();
  const auto lines = std::count(text.begin(), text.end(), '\n') - 2 * (std::count(text.begin(), text.end(), '#') / 2);
  EXPECT_LT(lines, 2000);
}

TEST(MetricsTest, DriftIsAbsentUntilTheBaselineOfThatShapeIsKnown) {
  Metrics metrics;
  const StepShape shape{128, 128, 1, 1};
  metrics.SetStepBaseline(shape, 0.1);
  metrics.ObserveStep({64, 64, 1, 1}, 9.0);
  EXPECT_FALSE(Has(metrics, "hotlora_step_drift_ratio "));
  metrics.ObserveStep(shape, 0.2);
  EXPECT_TRUE(Has(metrics, "hotlora_step_drift_ratio 2"));
  EXPECT_TRUE(Has(metrics, "hotlora_step_baseline_seconds{cfg=\"on\",height=\"128\",rows=\"1\",width=\"128\"} 0.1"));
}

TEST(MetricsTest, BaselinesAreOfServedShapesTooAndAtMost32) {
  Metrics metrics;
  for (uint32_t i = 0; i < 40; ++i) {
    for (int step = 0; step < 32; ++step) {
      metrics.ObserveStep({64 + 8 * i, 64, 1, 0}, 0.25);
      metrics.ObserveStep({64 + 8 * i, 64, 2, 1}, 0.25);  // labels cannot tell it from two guided rows
    }
  }
  const std::string text = metrics.Render();
  size_t baselines = 0;
  for (size_t at = text.find("\nhotlora_step_baseline_seconds{"); at != std::string::npos;
       at = text.find("\nhotlora_step_baseline_seconds{", at + 1)) {
    ++baselines;
  }
  EXPECT_EQ(baselines, 16u);
  EXPECT_TRUE(Has(metrics, "hotlora_step_baseline_seconds{cfg=\"off\",height=\"64\",rows=\"1\",width=\"376\"} 0.25"));
  EXPECT_FALSE(Has(metrics, "hotlora_step_baseline_seconds{cfg=\"off\",height=\"64\",rows=\"1\",width=\"64\"}"));
}

TEST(MetricsTest, SizesFallIntoTheirLabel) {
  Metrics metrics;
  metrics.ObserveStep({512, 1024, 1, 0}, 0.01);
  metrics.ObserveStep({1024, 1024, 1, 0}, 0.01);
  metrics.ObserveStep({1032, 1024, 1, 0}, 0.01);
  metrics.ObserveStep({2048, 2048, 1, 0}, 0.01);
  for (const char* size : {"le_0.5mp", "le_1mp", "le_2mp", "gt_2mp"}) {
    EXPECT_TRUE(
        Has(metrics, std::string("hotlora_denoise_step_duration_seconds_count{cfg=\"off\",size=\"") + size + "\"} 1"));
  }
}

TEST(MetricsTest, ReadsSourcesAtScrapeAndForgetsThemWhenCleared) {
  Metrics metrics;
  uint32_t depth = 3;
  GaugeSources sources;
  sources.device = "cpu";
  sources.device_memory = [] {
    MemoryStats memory;
    memory.allocated = 100;
    memory.reserved = 400;
    memory.inactive_split = 50;
    memory.peak_allocated = 300;
    memory.active = 110;
    memory.requested = 90;
    memory.segments = 7;
    memory.retries = 2;
    memory.failures = 1;
    memory.taken = 8;
    memory.returned = 5;
    return memory;
  };
  sources.queue_depth = [&depth] { return depth; };
  sources.queue_capacity = 64;
  sources.batch_capacity = 4;
  sources.adapters_folder = "/";
  metrics.SetSources(std::move(sources));
  const std::pair<const char*, const char*> figures[] = {{"allocated_bytes", "100"},
                                                         {"reserved_bytes", "400"},
                                                         {"inactive_split_bytes", "50"},
                                                         {"peak_allocated_bytes", "300"},
                                                         {"active_bytes", "110"},
                                                         {"requested_bytes", "90"},
                                                         {"segments", "7"},
                                                         {"allocation_retries_total", "2"},
                                                         {"oom_total", "1"},
                                                         {"device_allocations_total", "8"},
                                                         {"device_frees_total", "5"},
                                                         {"fragmentation_ratio", "0.125"}};
  for (const auto& [name, value] : figures) {
    const std::string line = absl::StrCat("hotlora_device_memory_", name, "{device=\"cpu\"} ", value, "\n");
    EXPECT_TRUE(Has(metrics, line)) << line;
  }
  EXPECT_TRUE(Has(metrics, "hotlora_batch_capacity_rows 4"));
  EXPECT_TRUE(Has(metrics, "hotlora_disk_free_bytes{volume=\"adapters\"} "));
  EXPECT_TRUE(Has(metrics, "hotlora_queue_depth 3"));
  depth = 4;
  EXPECT_TRUE(Has(metrics, "hotlora_queue_depth 4"));
  EXPECT_TRUE(Has(metrics, "hotlora_queue_capacity 64"));
  metrics.SetSources({});
  EXPECT_FALSE(Has(metrics, "hotlora_queue_depth 4"));
}

TEST(MetricsTest, CountsImagesByFormat) {
  Metrics metrics;
  metrics.CountImage(ImageFormat::kWebp);
  metrics.calls().CountImageBytes(ImageFormat::kRawRgb8, 12);
  EXPECT_TRUE(Has(metrics, "hotlora_images_total{format=\"png\"} 0"));
  EXPECT_TRUE(Has(metrics, "hotlora_images_total{format=\"webp\"} 1"));
  EXPECT_TRUE(Has(metrics, "hotlora_image_bytes_total{format=\"raw_rgb8\"} 12"));
}

TEST(MetricsTest, CountsByOutcome) {
  Metrics metrics;
  metrics.CountRequest("GenerateImages", "OK", 1.0);
  metrics.CountRequest("GenerateImages", "CANCELLED", 1.0);
  metrics.CountRequest("GenerateImages", "NOT_FOUND", 1.0);
  for (const char* outcome : {"ok", "cancelled", "error"}) {
    EXPECT_TRUE(
        Has(metrics, std::string("hotlora_request_duration_seconds_count{method=\"GenerateImages\",outcome=\"") +
                         outcome + "\"} 1"));
  }
}

TEST(MetricsTest, LoadsAreCountedByReason) {
  Metrics metrics;
  metrics.adapters().CountLoad("", 1000);
  metrics.adapters().CountLoad("ADAPTER_INVALID", 0);
  metrics.adapters().CountLoad("SOMETHING_NEW", 0);
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_loads_total{outcome=\"ok\",reason=\"none\"} 1"));
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_loads_total{outcome=\"error\",reason=\"adapter_invalid\"} 1"));
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_loads_total{outcome=\"error\",reason=\"other\"} 1"));
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_bytes_loaded_total{source=\"disk\"} 1000"));
}

TEST(MetricsTest, ATierTellsItsFill) {
  Metrics metrics;
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_cache_pinned_bytes{tier=\"host\"} 0"));
  metrics.adapters().SetCache(AdapterTier::kHost, {300, 1000, 200, 3});
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_cache_bytes{tier=\"host\"} 300"));
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_cache_capacity_bytes{tier=\"host\"} 1000"));
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_cache_pinned_bytes{tier=\"host\"} 200"));
  EXPECT_TRUE(Has(metrics, "hotlora_adapter_cache_entries{tier=\"host\"} 3"));
}

TEST(MetricsTest, ErrorsAreCountedByReasonAndUnknownOnesAsOther) {
  Metrics metrics;
  metrics.calls().CountRejection("QUEUE_FULL");
  metrics.calls().CountRejection("NONFINITE_OUTPUT");
  metrics.calls().CountRejection("SOMETHING_NEW");
  EXPECT_TRUE(Has(metrics, "hotlora_requests_rejected_total{reason=\"queue_full\"} 1"));
  EXPECT_TRUE(Has(metrics, "hotlora_requests_rejected_total{reason=\"other\"} 1"));
  EXPECT_TRUE(Has(metrics, "hotlora_images_nonfinite_total 1"));
}

TEST(MetricsTest, TheCertificatesEndIsThereWhereThereIsACertificate) {
  Metrics metrics;
  EXPECT_FALSE(Has(metrics, "hotlora_tls_certificate_not_after_timestamp_seconds"));
  metrics.SetCertificateEnd([] { return std::optional(absl::FromUnixSeconds(2000000000)); });
  EXPECT_TRUE(Has(metrics, "hotlora_tls_certificate_not_after_timestamp_seconds 2000000000"));
  metrics.SetCertificateEnd([] { return std::nullopt; });
  EXPECT_FALSE(Has(metrics, "hotlora_tls_certificate_not_after_timestamp_seconds"));
}

}  // namespace
}  // namespace hotlora
