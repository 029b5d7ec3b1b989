#include "src/scheduler/adapter_swaps.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "tests/fakes/fake_adapter_store.h"
#include "tests/fakes/fake_pipeline.h"
#include "tests/fakes/recording_listener.h"

namespace hotlora {
namespace {

class AdapterSwapsTest : public ::testing::Test {
 protected:
  AdapterSwapsTest() {
    store_levers_->Add("a");
    store_levers_->Add("b");
  }

  // A request of eight steps that has started, with its adapters and their ranges.
  std::shared_ptr<ImageRun> Start(const std::vector<AdapterUse>& uses, ApplyMode mode = ApplyMode::kMerged,
                                  bool hires = false) {
    ImageJob job;
    job.denoise.width = job.denoise.height = 16;
    job.denoise.steps = 8;
    if (hires) {
      job.hires = job.denoise;
    }
    LoadedFiles loaded;
    for (const AdapterUse& use : uses) {
      loaded.adapters.push_back({use, store_.Acquire(use.name).value()});
    }
    auto task =
        std::make_shared<ImageTask>(std::move(job), std::make_shared<RecordingListener>(), absl::InfiniteDuration());
    EXPECT_TRUE(task->BeginLoading());
    task->EndLoading(std::move(loaded), 0);
    EXPECT_EQ(swaps_.AtStart(*task, mode, {}), absl::OkStatus());
    runs_.push_back(std::make_shared<ImageRun>(task));
    return runs_.back();
  }

  void AddRow(ImageRun& run, Pass pass = Pass::kFirst) {
    RunningRow& row = run.rows.emplace_back();
    row.image = pass == Pass::kFirst ? run.next_image++ : 0;
    row.pass = pass;
    row.row =
        pipeline_
            .StartRow(run.job().options(pass), 0, nullptr, run.task->adapter_schedule(pass), nullptr, nullptr, nullptr)
            .value();
  }

  // So many steps of all rows.
  void Step(uint32_t steps = 1, ApplyMode mode = ApplyMode::kMerged) {
    for (uint32_t i = 0; i < steps; ++i) {
      ASSERT_EQ(swaps_.BeforeStep(runs_, mode), absl::OkStatus());
      BatchPlan plan;
      for (const RowRef& ref : RowsOf(runs_)) {
        plan.rows.push_back(ref.row->row.get());
      }
      std::vector<std::string> sets;
      for (const Row* row : plan.rows) {
        sets.push_back(row->next_adapters().fingerprint);
      }
      swaps_.NoteStep(std::move(sets));
      ASSERT_TRUE(pipeline_.Step(plan).ok());
    }
  }

  uint32_t Swaps() {
    uint32_t swaps = 0;
    while (metrics_.Render().find("\nhotlora_adapter_swaps_total{outcome=\"ok\"} " + std::to_string(swaps) + "\n") ==
           std::string::npos) {
      ++swaps;
    }
    return swaps;
  }

  static AdapterUse Use(const char* name, double start, double end) { return {name, 1.0, 0.0, {start, end}, {}}; }

  Metrics metrics_;
  std::shared_ptr<FakePipeline::Levers> levers_ = std::make_shared<FakePipeline::Levers>();
  std::shared_ptr<FakeAdapterStore::Levers> store_levers_ = std::make_shared<FakeAdapterStore::Levers>();
  FakePipeline pipeline_{levers_};
  FakeAdapterStore store_{store_levers_};
  CostBook costs_;
  AdapterSwaps swaps_{&pipeline_, &costs_, &metrics_};
  std::vector<std::shared_ptr<ImageRun>> runs_;
};

TEST_F(AdapterSwapsTest, CountsEachChangeInsideARequest) {
  const auto run = Start({Use("a", 0, 0.5), Use("b", 0.25, 1)});
  EXPECT_EQ(Swaps(), 1u);
  const double at_start = run->task->summary.swap.total_seconds;
  AddRow(*run);
  Step(2);
  EXPECT_EQ(Swaps(), 1u);
  Step();
  EXPECT_EQ(Swaps(), 2u) << "b joins a";
  Step(5);
  EXPECT_EQ(Swaps(), 3u) << "a leaves";
  EXPECT_GT(run->task->summary.swap.total_seconds, at_start);
  absl::MutexLock lock(&levers_->mu);
  const AdapterSchedule& schedule = run->task->adapter_schedule();
  EXPECT_EQ(levers_->applied, std::vector<std::string>({schedule.at(0).fingerprint, schedule.at(2).fingerprint,
                                                        schedule.at(4).fingerprint}));
}

TEST_F(AdapterSwapsTest, TheBaseModelIsASetToo) {
  const auto run = Start({Use("a", 0.5, 1)});
  EXPECT_EQ(Swaps(), 0u);
  EXPECT_FALSE(run->task->summary.swap.changed);
  AddRow(*run);
  Step(8);
  EXPECT_EQ(Swaps(), 1u);
  EXPECT_TRUE(run->task->summary.swap.changed);
}

TEST_F(AdapterSwapsTest, RowsThatChangeTogetherAreOneSwap) {
  const auto run = Start({Use("a", 0, 0.5)});
  AddRow(*run);
  AddRow(*run);
  Step(8);
  EXPECT_EQ(Swaps(), 2u);
}

TEST_F(AdapterSwapsTest, ARowThatComesToASetOfAnotherRowIsNone) {
  const auto run = Start({Use("a", 0, 0.5)}, ApplyMode::kSide);
  AddRow(*run);
  Step(2, ApplyMode::kSide);
  AddRow(*run);
  Step(6, ApplyMode::kSide);
  EXPECT_EQ(Swaps(), 2u) << "the second row comes to the base model while the first has it";
}

TEST_F(AdapterSwapsTest, AnImageThatBeginsAgainWithTheFirstSetIsASwap) {
  const auto run = Start({Use("a", 0, 0.5)});
  AddRow(*run);
  Step(8);
  run->rows.clear();
  AddRow(*run);
  AddRow(*run);
  EXPECT_EQ(Swaps(), 2u);
  Step();
  EXPECT_EQ(Swaps(), 3u) << "once for both";
  Step(7);
  EXPECT_EQ(Swaps(), 4u);
}

TEST_F(AdapterSwapsTest, ASecondPassIsASwapIfItsSetIsNotInEffect) {
  const auto run = Start({Use("a", 0, 0.5)}, ApplyMode::kMerged, /*hires=*/true);
  AddRow(*run);
  Step(8);
  EXPECT_EQ(Swaps(), 2u);
  run->rows.clear();
  AddRow(*run, Pass::kSecond);
  Step(8);
  EXPECT_EQ(Swaps(), 4u) << "a comes again, and leaves again";
}

TEST_F(AdapterSwapsTest, ASecondPassWithTheSetOfTheFirstIsNoSwap) {
  const auto run = Start({Use("a", 0, 1)}, ApplyMode::kMerged, /*hires=*/true);
  AddRow(*run);
  Step(8);
  run->rows.clear();
  AddRow(*run, Pass::kSecond);
  Step(8);
  EXPECT_EQ(Swaps(), 1u);
}

// In side mode the sets of all rows of the last step are in effect, not that of the last row alone.
TEST_F(AdapterSwapsTest, ASecondPassBesideOthersIsNoSwap) {
  const auto run = Start({Use("a", 0, 1)}, ApplyMode::kSide, /*hires=*/true);
  const auto other = Start({Use("b", 0, 1)}, ApplyMode::kSide);
  EXPECT_EQ(Swaps(), 2u);
  AddRow(*run);
  AddRow(*other);
  Step(8, ApplyMode::kSide);
  runs_ = {run};
  run->rows.clear();
  AddRow(*run, Pass::kSecond);
  Step(8, ApplyMode::kSide);
  EXPECT_EQ(Swaps(), 2u);
}

TEST_F(AdapterSwapsTest, ARequestWithOneSetChangesNothing) {
  const auto run = Start({Use("a", 0, 1)});
  AddRow(*run);
  Step(8);
  EXPECT_EQ(Swaps(), 1u);
  absl::MutexLock lock(&levers_->mu);
  EXPECT_EQ(levers_->applied.size(), 1u);
}

}  // namespace
}  // namespace hotlora
