#include "src/scheduler/step_report.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "src/metrics/step_drift.h"
#include "tests/fakes/fake_adapter_store.h"
#include "tests/fakes/fake_pipeline.h"
#include "tests/fakes/recording_listener.h"

namespace hotlora {
namespace {

// A fake pipeline whose previews may fail.
class PreviewingPipeline : public FakePipeline {
 public:
  using FakePipeline::FakePipeline;
  absl::StatusOr<RgbImage> Preview(const Row& row) override {
    if (!preview_error.ok()) {
      return preview_error;
    }
    return FakePipeline::Preview(row);
  }
  absl::Status preview_error;
};

class StepReportTest : public ::testing::Test {
 protected:
  StepReportTest() {
    store_levers_->Add("a");
    store_levers_->Add("b");
  }

  // A request of two images with a row each, and its listener.
  struct Request {
    std::shared_ptr<ImageRun> run;
    std::shared_ptr<RecordingListener> listener = std::make_shared<RecordingListener>();
  };

  Request Start(const std::string& adapter, double guidance_scale = 1.0, uint32_t preview_every = 0,
                const std::shared_ptr<const ImagePrompts>& image_prompts = nullptr) {
    Request request;
    ImageJob job;
    job.denoise.width = 32;
    job.denoise.height = 16;
    job.denoise.steps = 4;
    job.denoise.guidance_scale = guidance_scale;
    job.denoise.preview_every = preview_every;
    job.num_images = 2;
    auto task = std::make_shared<ImageTask>(std::move(job), request.listener, absl::InfiniteDuration());
    LoadedFiles loaded;
    if (!adapter.empty()) {
      LeasedAdapter& leased = loaded.adapters.emplace_back();
      leased.use.name = adapter;
      leased.lease = store_.Acquire(adapter).value();
    }
    EXPECT_TRUE(task->BeginLoading());
    task->EndLoading(std::move(loaded), 0);
    request.run = std::make_shared<ImageRun>(task);
    for (uint32_t image = 0; image < 2; ++image) {
      RunningRow row;
      row.image = image;
      row.row =
          pipeline_
              .StartRow(task->job().denoise, image, nullptr, task->adapter_schedule(), nullptr, nullptr, image_prompts)
              .value();
      request.run->rows.push_back(std::move(row));
    }
    return request;
  }

  // Steps the rows of the runs together, and reports it.
  void Step(const std::vector<std::shared_ptr<ImageRun>>& runs, ApplyMode mode, double seconds) {
    const std::vector<RowRef> rows = RowsOf(runs);
    BatchPlan plan;
    plan.mode = mode;
    for (const RowRef& ref : rows) {
      plan.rows.push_back(ref.row->row.get());
    }
    ASSERT_EQ(pipeline_.Step(plan), absl::OkStatus());
    report_.Report(rows, mode, seconds);
  }

  bool HasMetric(const std::string& line) { return metrics_.Render().find("\n" + line) != std::string::npos; }

  Metrics metrics_;
  std::shared_ptr<FakePipeline::Levers> levers_ = std::make_shared<FakePipeline::Levers>();
  std::shared_ptr<FakeAdapterStore::Levers> store_levers_ = std::make_shared<FakeAdapterStore::Levers>();
  PreviewingPipeline pipeline_{levers_};
  FakeAdapterStore store_{store_levers_};
  CostBook costs_;
  StepReport report_{&pipeline_, &costs_, &metrics_};
};

TEST_F(StepReportTest, AStepCountsOnceForARunAndOnceForEachRow) {
  const Request one = Start(""), two = Start("");
  Step({one.run, two.run}, ApplyMode::kMerged, 0.5);
  Step({one.run}, ApplyMode::kMerged, 0.25);
  EXPECT_EQ(one.run->task->summary.denoise_seconds, 0.75);
  EXPECT_EQ(two.run->task->summary.denoise_seconds, 0.5);
  const std::vector<ImageProgress> progresses = one.listener->progresses();
  ASSERT_EQ(progresses.size(), 4u);
  EXPECT_EQ(progresses[1].image_index, 1u);
  EXPECT_EQ(progresses[1].step, 1u);
  EXPECT_EQ(progresses[1].total_steps, 4u);
  EXPECT_EQ(progresses[1].step_seconds, 0.5);
  EXPECT_EQ(progresses[3].step, 2u);
  EXPECT_EQ(progresses[3].step_seconds, 0.25) << "since the row's last step";
}

TEST_F(StepReportTest, AnEvaluationThatEndsNoStepIsNoProgress) {
  const Request one = Start("");
  report_.Report(RowsOf({one.run}), ApplyMode::kMerged, 0.5);
  EXPECT_TRUE(one.listener->progresses().empty());
  Step({one.run}, ApplyMode::kMerged, 0.25);
  ASSERT_EQ(one.listener->progresses().size(), 2u);
  EXPECT_EQ(one.listener->progresses()[0].step_seconds, 0.75) << "of both evaluations";
}

TEST_F(StepReportTest, APreviewThatFailsEndsItsRequestAlone) {
  const Request one = Start("", 1.0, /*preview_every=*/1), two = Start("");
  pipeline_.preview_error = absl::InternalError("no preview");
  Step({one.run, two.run}, ApplyMode::kMerged, 0.5);
  EXPECT_EQ(one.run->status, absl::InternalError("no preview"));
  EXPECT_TRUE(one.listener->progresses().empty());
  EXPECT_EQ(two.run->status, absl::OkStatus());
  EXPECT_EQ(two.listener->progresses().size(), 2u);
}

TEST_F(StepReportTest, GuidanceIsOfTheStepsKind) {
  const Request guided = Start("", 5.0), plain = Start("");
  Step({guided.run}, ApplyMode::kMerged, 0.5);
  EXPECT_TRUE(HasMetric("hotlora_denoise_step_duration_seconds_count{cfg=\"on\",size=\"le_0.5mp\"} 1"));
  EXPECT_TRUE(HasMetric("hotlora_denoise_step_duration_seconds_count{cfg=\"off\",size=\"le_0.5mp\"} 0"));
  Step({plain.run}, ApplyMode::kMerged, 0.5);
  EXPECT_TRUE(HasMetric("hotlora_denoise_step_duration_seconds_count{cfg=\"off\",size=\"le_0.5mp\"} 1"));
}

// Only steps without side branches and image prompts get a published baseline, after StepDrift::kBaselineSteps of them.
TEST_F(StepReportTest, SideBranchesAndImagePromptsAreOfTheStepsKind) {
  const Request base = Start(""), side = Start("a");
  const Request prompted = Start("", 1.0, 0, std::make_shared<const ImagePrompts>());
  const auto report_many = [this](const Request& request, ApplyMode mode) {
    for (size_t i = 0; i < StepDrift::kBaselineSteps; ++i) {
      report_.Report(RowsOf({request.run}), mode, 0.5);
    }
  };
  report_many(side, ApplyMode::kSide);
  report_many(prompted, ApplyMode::kMerged);
  EXPECT_FALSE(HasMetric("hotlora_step_baseline_seconds{"));
  report_many(base, ApplyMode::kSide);
  EXPECT_TRUE(HasMetric("hotlora_step_baseline_seconds{")) << "the base model has no side branch";
}

TEST_F(StepReportTest, StepsWithImagePromptsSayNothingOfTheCostOfAdapters) {
  const auto known = [this] { return costs_.Report().steps.size(); };
  Step({Start("", 1.0, 0, std::make_shared<const ImagePrompts>()).run}, ApplyMode::kMerged, 0.5);
  EXPECT_EQ(known(), 0u);
  Step({Start("").run}, ApplyMode::kMerged, 0.5);
  EXPECT_EQ(known(), 1u);
}

}  // namespace
}  // namespace hotlora
