#include "src/scheduler/run_start.h"

#include <functional>
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

// A fake pipeline whose next Apply may fail, and that may do more while it encodes.
class FailingPipeline : public FakePipeline {
 public:
  using FakePipeline::FakePipeline;
  absl::StatusOr<SwapReport> Apply(const AdapterSet& set, ApplyMode mode) override {
    if (!next_apply_error.ok()) {
      return std::exchange(next_apply_error, absl::OkStatus());
    }
    return FakePipeline::Apply(set, mode);
  }
  absl::StatusOr<std::shared_ptr<const Conditioning>> Encode(const Prompts& prompts, bool negative,
                                                             const AdapterSet& set, ApplyMode mode) override {
    if (in_encode) {
      in_encode();
    }
    return FakePipeline::Encode(prompts, negative, set, mode);
  }
  absl::Status next_apply_error;
  std::function<void()> in_encode;
};

// A lease of a network that no test runs.
template <typename Placed>
struct NetworkLease : AdapterLease {
  const AdapterInfo& info() const override { return of; }
  HeldWeights held() const override { return std::shared_ptr<const Placed>(); }
  const AcquireReport& report() const override { return acquired; }

  AdapterInfo of;
  AcquireReport acquired;
};

class RunStartTest : public ::testing::Test {
 protected:
  RunStartTest() {
    store_levers_->Add("a");
    store_levers_->Add("b");
  }

  // A request as it is taken from the queue, with its adapters leased.
  std::shared_ptr<ImageRun> Run(const std::vector<std::string>& adapters, bool init = false) {
    ImageJob job;
    job.request_id = "one";
    job.num_images = 2;
    job.prompts.prompt = "a prompt";
    job.denoise.width = job.denoise.height = 16;
    job.init_image = init ? "a picture" : "";
    LoadedFiles loaded;
    for (const std::string& name : adapters) {
      job.adapters.push_back({name, 1.0, 1.0});
      loaded.adapters.push_back({job.adapters.back(), store_.Acquire(name).value()});
    }
    auto task =
        std::make_shared<ImageTask>(std::move(job), std::make_shared<RecordingListener>(), absl::InfiniteDuration());
    EXPECT_TRUE(task->BeginLoading());
    if (init) {
      task->SetInit(std::make_shared<const InitLatents>());
      task->summary.encode_seconds = 0.5;
    }
    task->EndLoading(std::move(loaded), 0.25);
    return std::make_shared<ImageRun>(task);
  }

  // A request of two image prompts, of one picture and of two, and of two passes.
  std::shared_ptr<ImageRun> RunWithImagePrompts() {
    ImageJob job;
    job.denoise.width = job.denoise.height = 16;
    job.hires = job.denoise;
    job.image_prompts.resize(2);
    job.image_prompts[0].scale = 0.5;
    LoadedFiles loaded;
    for (const ImagePromptUse& use : job.image_prompts) {
      loaded.image_prompts.push_back({&use, std::make_shared<const NetworkLease<PlacedImagePrompt>>()});
    }
    loaded.image_encoder = std::make_shared<const NetworkLease<PlacedImageEncoder>>();
    auto task =
        std::make_shared<ImageTask>(std::move(job), std::make_shared<RecordingListener>(), absl::InfiniteDuration());
    EXPECT_TRUE(task->BeginLoading());
    task->SetImagePromptPictures({{std::vector<RgbImage>(1), std::vector<RgbImage>(2)}, {}});
    task->EndLoading(std::move(loaded), 0);
    return std::make_shared<ImageRun>(task);
  }

  // How many pictures each of the image prompts had that were encoded.
  std::vector<size_t> EncodedPictures() {
    absl::MutexLock lock(&levers_->mu);
    return levers_->image_prompt_pictures;
  }

  // Prepares a request with these adapters beside rows of the sets `running`, and returns what its summary says of the
  // swap.
  SwapCost Swap(const std::vector<std::string>& adapters, ApplyMode mode = ApplyMode::kMerged,
                const std::vector<std::string>& running = {}) {
    const std::shared_ptr<ImageRun> run = Run(adapters);
    EXPECT_EQ(start_.Prepare(*run, mode, running), absl::OkStatus());
    return run->task->summary.swap;
  }

  std::string FingerprintOf(const std::string& adapter) { return Run({adapter})->task->fingerprint(); }

  bool HasMetric(const std::string& line) { return metrics_.Render().find("\n" + line + "\n") != std::string::npos; }

  std::vector<std::string> Applied() {
    absl::MutexLock lock(&levers_->mu);
    return levers_->applied;
  }

  Metrics metrics_;
  std::shared_ptr<FakePipeline::Levers> levers_ = std::make_shared<FakePipeline::Levers>();
  std::shared_ptr<FakeAdapterStore::Levers> store_levers_ = std::make_shared<FakeAdapterStore::Levers>();
  FailingPipeline pipeline_{levers_};
  FakeAdapterStore store_{store_levers_};
  MemoryAdmission memory_{&pipeline_, &metrics_};
  CostBook costs_;
  AdapterSwaps swaps_{&pipeline_, &costs_, &metrics_};
  RunStart start_{&pipeline_, &memory_, &swaps_, &metrics_};
};

TEST_F(RunStartTest, AppliesAndEncodes) {
  const auto run = Run({"a"}, /*init=*/true);
  ASSERT_EQ(start_.Prepare(*run, ApplyMode::kMerged, {}), absl::OkStatus());
  EXPECT_NE(run->conditioning, nullptr);
  EXPECT_NE(run->init, nullptr);
  EXPECT_EQ(run->task->TakeInit(), nullptr) << "the run has it";
  EXPECT_EQ(Applied(), std::vector<std::string>{run->task->fingerprint()});
  const ImageSummary& summary = run->task->summary;
  EXPECT_EQ(summary.model_sha256, pipeline_.info().sha256);
  ASSERT_EQ(summary.adapters.size(), 1u);
  EXPECT_EQ(summary.adapters[0].name, "a");
  EXPECT_GE(summary.adapter_seconds, 0.25) << "the time of loading counts too";
  EXPECT_GE(summary.encode_seconds, 0.5) << "the time of the init image counts too";
  EXPECT_TRUE(summary.swap.changed);
  EXPECT_TRUE(summary.swap.merged);
  EXPECT_TRUE(HasMetric("hotlora_adapter_swaps_total{outcome=\"ok\"} 1"));
}

TEST_F(RunStartTest, ASetThatIsInEffectIsNotASwap) {
  EXPECT_FALSE(Swap({}).changed) << "the base model is in effect at start";
  EXPECT_TRUE(Swap({"a"}).changed);
  EXPECT_FALSE(Swap({"a"}).changed);
  EXPECT_TRUE(Swap({}).changed);
  EXPECT_TRUE(HasMetric("hotlora_adapter_swaps_total{outcome=\"ok\"} 2"));
}

TEST_F(RunStartTest, ASetThatHasRowsIsInEffect) {
  Swap({"a"}, ApplyMode::kSide);
  Swap({"b"}, ApplyMode::kSide, {FingerprintOf("a")});
  const SwapCost again = Swap({"a"}, ApplyMode::kSide, {FingerprintOf("a"), FingerprintOf("b")});
  EXPECT_FALSE(again.changed);
  EXPECT_FALSE(again.merged);
}

TEST_F(RunStartTest, AStepLeavesTheSetOfItsLastRowInEffect) {
  Swap({"a"}, ApplyMode::kSide);
  swaps_.NoteStep({FingerprintOf("b")});
  EXPECT_TRUE(Swap({"a"}, ApplyMode::kSide).changed);
}

TEST_F(RunStartTest, AfterAFailedApplyNothingIsTakenToBeInEffect) {
  Swap({"a"});
  pipeline_.next_apply_error = absl::InternalError("half-way");
  const auto run = Run({"b"});
  EXPECT_EQ(start_.Prepare(*run, ApplyMode::kMerged, {}), absl::InternalError("half-way"));
  EXPECT_EQ(run->conditioning, nullptr);
  EXPECT_TRUE(HasMetric("hotlora_adapter_swaps_total{outcome=\"error\"} 1"));
  swaps_.NoteStep({FingerprintOf("a")});
  EXPECT_TRUE(Swap({"a"}).changed);
}

TEST_F(RunStartTest, ImagePromptsAreEncodedOnceForBothPasses) {
  const auto run = RunWithImagePrompts();
  EXPECT_TRUE(run->task->has_pictures());
  ASSERT_EQ(start_.Prepare(*run, ApplyMode::kMerged, {}), absl::OkStatus());
  EXPECT_EQ(EncodedPictures(), (std::vector<size_t>{1, 2}));
  EXPECT_FALSE(run->task->has_pictures()) << "they are not kept";
  start_.StartRow(*run);
  run->to_refine.push_back({0, std::make_shared<const InitLatents>(), Stopwatch()});
  start_.StartSecondPass(*run);
  ASSERT_EQ(run->status, absl::OkStatus());
  ASSERT_EQ(run->rows.size(), 2u);
  for (const RunningRow& row : run->rows) {
    EXPECT_EQ(row.row->image_prompts_seen(), 1u);
  }
  EXPECT_EQ(EncodedPictures().size(), 2u);
  run->rows.clear();
  EXPECT_EQ(levers_->live_image_prompts, 1);
  run->image_prompts = nullptr;
  EXPECT_EQ(levers_->live_image_prompts, 0);
}

// While the texts are encoded the request is cancelled, and while pictures are there is not enough memory for them.
TEST_F(RunStartTest, ImagePromptsAreEncodedIfTheyAreWantedAndFit) {
  const auto cancelled = RunWithImagePrompts();
  pipeline_.in_encode = [&] { cancelled->task->Cancel(absl::CancelledError("the caller has gone")); };
  EXPECT_TRUE(absl::IsCancelled(start_.Prepare(*cancelled, ApplyMode::kMerged, {})));
  EXPECT_NE(cancelled->conditioning, nullptr);
  EXPECT_TRUE(EncodedPictures().empty());
  pipeline_.in_encode = nullptr;

  constexpr int64_t kMiB = int64_t{1} << 20;
  constexpr int64_t kNeeded = (125 + 30) * kMiB + MemoryAdmission::kFirstHeadRoom;
  const auto with_room = [&](int64_t bytes) {
    absl::MutexLock lock(&levers_->mu);
    levers_->image_prompt_bytes = {30 * kMiB, 100 * kMiB};
    levers_->available_memory = bytes;
  };
  const auto run = RunWithImagePrompts();
  with_room(kNeeded - 1);
  const absl::Status status = start_.Prepare(*run, ApplyMode::kMerged, {});
  EXPECT_EQ(GetErrorDetails(status).reason, "OUT_OF_MEMORY");
  EXPECT_NE(std::string(status.message()).find("encoding 3 pictures of image prompts needs 411 MiB"), std::string::npos)
      << status;
  EXPECT_TRUE(EncodedPictures().empty());
  with_room(kNeeded);
  EXPECT_EQ(start_.Prepare(*RunWithImagePrompts(), ApplyMode::kMerged, {}), absl::OkStatus());
}

TEST_F(RunStartTest, EachImageGetsARow) {
  const auto run = Run({});
  start_.StartRow(*run);
  start_.StartRow(*run);
  ASSERT_EQ(run->rows.size(), 2u);
  EXPECT_EQ(run->rows[1].image, 1u);
  EXPECT_FALSE(run->has_images_to_start());
}

TEST_F(RunStartTest, ASecondPassWaitsSinceItsImageIsReady) {
  const auto run = Run({});
  run->to_refine.push_back({0, std::make_shared<const InitLatents>(), Stopwatch()});
  EXPECT_LE(run->Waited(Pass::kSecond), run->Waited(Pass::kFirst));
  EXPECT_TRUE(run->wants_row());
  EXPECT_TRUE(run->has_second_passes());
}

TEST_F(RunStartTest, ARowThatCannotStartEndsTheRun) {
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->next_row_error = absl::InternalError("no row");
  }
  const auto run = Run({});
  start_.StartRow(*run);
  EXPECT_EQ(run->status, absl::InternalError("no row"));
  start_.StartRow(*run);
  EXPECT_TRUE(run->rows.empty()) << "it has failed, so it gets no other";
}

TEST_F(RunStartTest, AnUnwantedRequestTouchesNothing) {
  const auto run = Run({"a"});
  run->task->Cancel(absl::CancelledError("the caller has gone"));
  EXPECT_TRUE(absl::IsCancelled(start_.Prepare(*run, ApplyMode::kMerged, {})));
  EXPECT_TRUE(Applied().empty());
}

TEST_F(RunStartTest, WithoutMemoryNoAdapterIsApplied) {
  {
    absl::MutexLock lock(&levers_->mu);
    levers_->available_memory = 1;
  }
  const auto run = Run({"a"});
  EXPECT_EQ(GetErrorDetails(start_.Prepare(*run, ApplyMode::kMerged, {})).reason, "OUT_OF_MEMORY");
  EXPECT_TRUE(Applied().empty());
}

}  // namespace
}  // namespace hotlora
