#include "src/scheduler/row_fit.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fakes/fake_adapter_store.h"
#include "tests/fakes/fake_pipeline.h"
#include "tests/fakes/recording_listener.h"

namespace hotlora {
namespace {

class RowFitTest : public ::testing::Test {
 protected:
  RowFitTest() {
    store_levers_->Add("a");
    store_levers_->Add("b");
  }

  // A request that is ready; "": without adapters.
  std::shared_ptr<ImageTask> Ready(const std::string& adapter, uint32_t width = 16, EvaluationRange range = {}) {
    ImageJob job;
    job.denoise.width = width;
    job.denoise.height = 16;
    job.denoise.steps = 8;
    return ReadyWith(std::move(job), adapter, range);
  }

  // Such a request of 16x16 pixels, then 32x16.
  std::shared_ptr<ImageTask> ReadyForBothPasses() {
    ImageJob job;
    job.denoise.width = job.denoise.height = 16;
    job.hires = job.denoise;
    job.hires->width = 32;
    return ReadyWith(std::move(job), "", {});
  }

  std::shared_ptr<ImageTask> ReadyWith(ImageJob job, const std::string& adapter, EvaluationRange range) {
    LoadedFiles loaded;
    if (!adapter.empty()) {
      AdapterUse use;
      use.name = adapter;
      use.text_encoder_weight = 0.0;
      use.range = range;
      loaded.adapters.push_back({std::move(use), store_.Acquire(adapter).value()});
    }
    auto task =
        std::make_shared<ImageTask>(std::move(job), std::make_shared<RecordingListener>(), absl::InfiniteDuration());
    EXPECT_TRUE(task->BeginLoading());
    task->EndLoading(std::move(loaded), 0);
    return task;
  }

  // Such a request of eight steps, whose adapter has an effect in the first half.
  std::shared_ptr<ImageTask> ReadyForHalf(const std::string& adapter) { return Ready(adapter, 16, {0.0, 0.5}); }

  // Such a request runs, with one row.
  std::shared_ptr<ImageRun> AsRun(const std::shared_ptr<ImageTask>& task) {
    auto run = std::make_shared<ImageRun>(task);
    run->rows.emplace_back().row =
        pipeline_.StartRow(run->job().denoise, 0, nullptr, run->task->adapter_schedule(), nullptr, nullptr, nullptr)
            .value();
    return run;
  }
  void Run(const std::shared_ptr<ImageTask>& task) { runs_.push_back(AsRun(task)); }
  void Run(const std::string& adapter) { Run(Ready(adapter)); }

  // All rows do a step.
  void Step() {
    BatchPlan plan;
    for (const RowRef& ref : RowsOf(runs_)) {
      plan.rows.push_back(ref.row->row.get());
    }
    ASSERT_TRUE(pipeline_.Step(plan).ok());
  }

  // Rows of these two can share no step.
  void Forbid(const std::string& a, const std::string& b) {
    absl::MutexLock lock(&levers_->mu);
    levers_->unshareable_pair = {Ready(a)->fingerprint(), Ready(b)->fingerprint()};
  }

  std::optional<RegroupReason> KeptOutBy(const std::shared_ptr<ImageTask>& task,
                                         ApplyPolicy apply = ApplyPolicy::kAuto) {
    return RowFit(runs_, apply, &pipeline_, &memory_).KeptOutBy(*task);
  }

  Metrics metrics_;
  std::shared_ptr<FakePipeline::Levers> levers_ = std::make_shared<FakePipeline::Levers>();
  std::shared_ptr<FakeAdapterStore::Levers> store_levers_ = std::make_shared<FakeAdapterStore::Levers>();
  FakePipeline pipeline_{levers_};
  FakeAdapterStore store_{store_levers_};
  MemoryAdmission memory_{&pipeline_, &metrics_};
  std::vector<std::shared_ptr<ImageRun>> runs_;
};

TEST_F(RowFitTest, OneSizeOnly) {
  Run("");
  EXPECT_EQ(KeptOutBy(Ready("", 32)), RegroupReason::kSize);
  EXPECT_EQ(KeptOutBy(Ready("")), std::nullopt);
}

// A pass has a size of its own, whatever the other passes of its request have.
TEST_F(RowFitTest, ASecondPassRunsBesideRowsOfItsSize) {
  const auto with_second_pass = ReadyForBothPasses();
  const auto fits = [&](Pass pass) {
    return RowFit(runs_, ApplyPolicy::kAuto, &pipeline_, &memory_).KeptOutBy(*with_second_pass, pass);
  };
  Run(Ready("", 32));
  EXPECT_EQ(fits(Pass::kFirst), RegroupReason::kSize);
  EXPECT_EQ(fits(Pass::kSecond), std::nullopt);
  runs_.clear();
  Run(ReadyForBothPasses());
  EXPECT_EQ(fits(Pass::kFirst), std::nullopt);
  EXPECT_EQ(fits(Pass::kSecond), RegroupReason::kSize);
  RunningRow& row = runs_[0]->rows[0];
  row.pass = Pass::kSecond;
  row.row = pipeline_
                .StartRow(*runs_[0]->job().hires, 0, nullptr, runs_[0]->task->adapter_schedule(Pass::kSecond), nullptr,
                          nullptr, nullptr)
                .value();
  EXPECT_EQ(fits(Pass::kFirst), RegroupReason::kSize);
  EXPECT_EQ(fits(Pass::kSecond), std::nullopt);
}

TEST_F(RowFitTest, RunsWithoutRowsKeepNothingOut) {
  Run("a");
  runs_[0]->rows.clear();
  EXPECT_EQ(KeptOutBy(Ready("b", 32), ApplyPolicy::kMerged), std::nullopt);
  Run("b");
  EXPECT_EQ(KeptOutBy(Ready("b"), ApplyPolicy::kMerged), std::nullopt);
}

TEST_F(RowFitTest, SetsThatCannotShareAStepStayApart) {
  Run("a");
  EXPECT_EQ(KeptOutBy(Ready("b")), std::nullopt);
  EXPECT_EQ(KeptOutBy(Ready("b"), ApplyPolicy::kMerged), RegroupReason::kAdapters);
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->unshareable = true;
  }
  EXPECT_EQ(KeptOutBy(Ready("b")), RegroupReason::kAdapters);
  EXPECT_EQ(KeptOutBy(Ready("a"), ApplyPolicy::kMerged), std::nullopt) << "it is the set that runs";
}

TEST_F(RowFitTest, MergedRowsMustHaveOneSetInAllStepsToCome) {
  const auto kept_out = [this](const std::shared_ptr<ImageTask>& task) {
    return KeptOutBy(task, ApplyPolicy::kMerged).has_value();
  };
  Run(ReadyForHalf("a"));
  EXPECT_FALSE(kept_out(ReadyForHalf("a"))) << "both begin now";
  EXPECT_TRUE(kept_out(Ready("a"))) << "they part in the middle";
  EXPECT_TRUE(kept_out(ReadyForHalf("b")));
  Step();
  EXPECT_TRUE(kept_out(ReadyForHalf("a"))) << "they would part for a step";
  EXPECT_TRUE(kept_out(Ready("")));
  for (int i = 0; i < 3; ++i) {
    Step();
  }
  EXPECT_FALSE(kept_out(Ready(""))) << "the adapter has done its part";
  EXPECT_TRUE(kept_out(Ready("a")));
}

TEST_F(RowFitTest, RowsWhoseSetsPartShareStepsBesideTheWeights) {
  Run(ReadyForHalf("a"));
  Step();
  EXPECT_EQ(KeptOutBy(ReadyForHalf("a")), std::nullopt);
  EXPECT_EQ(KeptOutBy(Ready("b")), std::nullopt);
  Forbid("", "b");
  EXPECT_EQ(KeptOutBy(Ready("b")), RegroupReason::kAdapters) << "they fit now, but not in the second half";
  EXPECT_EQ(KeptOutBy(Ready("a")), std::nullopt);
}

// The rows of one request may be at different places of it.
TEST_F(RowFitTest, EachRowOfARunThatChangesIsAsked) {
  Run(ReadyForHalf("a"));
  for (int i = 0; i < 5; ++i) {
    Step();
  }
  EXPECT_EQ(KeptOutBy(Ready(""), ApplyPolicy::kMerged), std::nullopt);
  runs_[0]->rows.push_back(std::move(AsRun(ReadyForHalf("a"))->rows[0]));
  EXPECT_EQ(KeptOutBy(Ready(""), ApplyPolicy::kMerged), RegroupReason::kAdapters);
  EXPECT_EQ(KeptOutBy(Ready("")), std::nullopt);
  Forbid("a", "b");
  EXPECT_EQ(KeptOutBy(Ready("b")), RegroupReason::kAdapters);
}

TEST_F(RowFitTest, AnEndedRequestFitsNothing) {
  Run("a");
  const std::shared_ptr<ImageTask> ended = Ready("b");
  ASSERT_TRUE(ended->ClaimEnd());
  EXPECT_EQ(KeptOutBy(ended), RegroupReason::kAdapters);
}

// A step of one row takes 1 GiB, so one of two rows takes twice as much.
TEST_F(RowFitTest, AllRowsTogetherNeedMemory) {
  Run("");
  const auto take = [] {
    FakePipeline::taken_bytes = int64_t{1} << 30;
    return absl::OkStatus();
  };
  ASSERT_EQ(memory_.Call(StepWork(runs_[0]->job().denoise), take), absl::OkStatus());
  const auto set_available = [this](int64_t available) {
    absl::MutexLock lock(&levers_->mu);
    levers_->available_memory = available;
  };
  set_available(int64_t{2} << 30);
  EXPECT_EQ(KeptOutBy(Ready("")), RegroupReason::kMemory);
  set_available(int64_t{4} << 30);
  EXPECT_EQ(KeptOutBy(Ready("")), std::nullopt);
}

// A control's outputs take 1 GiB for each of the two rows of an image under guidance.
TEST_F(RowFitTest, ControlsNeedMemoryToo) {
  Run("");
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->control_bytes.outputs = int64_t{1} << 30;
    levers_->available_memory = int64_t{2} << 30;
  }
  ImageJob job = Ready("")->job();
  EXPECT_EQ(KeptOutBy(ReadyWith(job, "", {})), std::nullopt);
  job.controls.resize(1);
  EXPECT_EQ(KeptOutBy(ReadyWith(job, "", {})), RegroupReason::kMemory);
  job.controls[0].range.start = 0.5;
  EXPECT_EQ(KeptOutBy(ReadyWith(job, "", {})), std::nullopt) << "it is not in force in the next step";
}

}  // namespace
}  // namespace hotlora
