// Which rows share a denoising step, seen from outside of the engine.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "src/base/error_details.h"
#include "tests/engine/engine_fixture.h"

namespace hotlora {
namespace {

using Plan = std::vector<uint64_t>;  // seeds of a step's rows

class BatchingTest : public EngineTest {
 protected:
  using Listener = std::shared_ptr<RecordingListener>;

  void Restart(uint32_t max_batch, ApplyPolicy apply = ApplyPolicy::kAuto) {
    engine_ = nullptr;
    EngineOptions options;
    options.batch.max_batch = max_batch;
    options.batch.apply = apply;
    options.batch.longest_overtaking = absl::InfiniteDuration();
    Start(options);
  }
  void SetUp() override { Restart(4); }

  static ImageRequest Seeded(uint64_t seed, std::vector<AdapterRef> adapters = {}, uint32_t images = 1) {
    ImageRequest request = Request(std::to_string(seed), std::move(adapters), images);
    request.seed = seed;
    return request;
  }
  Listener Enter(const ImageRequest& request) {
    auto listener = std::make_shared<RecordingListener>();
    EXPECT_TRUE(Submit(request, listener).ok());
    return listener;
  }
  // Enters, and waits until its adapters are there. A request that fails for want of its adapter passes the same two
  // threads behind it, for both are of one caller.
  Listener EnterReady(const ImageRequest& request) {
    Listener listener = Enter(request);
    const ImageRequest behind = Seeded(*request.seed + 1, {{"missing", 1.0, {}}});
    EXPECT_EQ(Enter(behind)->AwaitDone().code(), absl::StatusCode::kNotFound);
    return listener;
  }
  // Enters, and waits until its first step is held.
  Listener EnterAndHold(const ImageRequest& request) {
    pipeline_->Hold();
    Listener listener = Enter(request);
    pipeline_->AwaitHeld();
    return listener;
  }
  void LetGoAndExpectOk(const std::vector<Listener>& listeners) {
    pipeline_->LetGo();
    for (const Listener& listener : listeners) {
      EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
    }
    ExpectNothingHeld();
  }
  std::vector<Plan> Plans() {
    absl::MutexLock lock(&pipeline_->mu);
    return pipeline_->plans;
  }
  bool EverTogether(uint64_t a, uint64_t b) {
    const std::vector<Plan> plans = Plans();
    return std::any_of(plans.begin(), plans.end(), [&](const Plan& plan) {
      return std::count(plan.begin(), plan.end(), a) + std::count(plan.begin(), plan.end(), b) == 2;
    });
  }
  uint32_t SideSteps() {
    absl::MutexLock lock(&pipeline_->mu);
    return pipeline_->side_steps;
  }
};

TEST_F(BatchingTest, ARequestJoinsAtTheNextStepBoundary) {
  const auto one = EnterAndHold(Seeded(100));
  EXPECT_EQ(pipeline_->LastPlan(), Plan({100}));
  const auto two = Enter(Seeded(200));
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan(), Plan({100, 200}));
  LetGoAndExpectOk({one, two});
  EXPECT_EQ(one->progresses().size(), 3u);
  EXPECT_EQ(two->progresses().size(), 3u);
  EXPECT_EQ(two->progresses()[0].step, 1u) << "it began at its own first step";
  EXPECT_TRUE(HasMetric("hotlora_batch_size_bucket{le=\"1\"} 2"));
  EXPECT_TRUE(HasMetric("hotlora_batch_size_bucket{le=\"2\"} 4"));
}

TEST_F(BatchingTest, NoMoreRowsThanMaxBatch) {
  Restart(2);
  const auto one = EnterAndHold(Seeded(100));
  const auto two = Enter(Seeded(200)), three = Enter(Seeded(300));
  LetGoAndExpectOk({one, two, three});
  EXPECT_TRUE(HasMetric("hotlora_batch_regroup_total{reason=\"full\"} 1"));
  absl::MutexLock lock(&pipeline_->mu);
  EXPECT_EQ(pipeline_->largest_plan, 2u);
}

TEST_F(BatchingTest, OneThatWantsManyImagesLeavesRowsToOthers) {
  Restart(2);
  const auto many = EnterAndHold(Seeded(100, {}, 6));
  EXPECT_EQ(pipeline_->LastPlan(), Plan({100, 101}));
  const auto one = Enter(Seeded(200));
  for (int i = 0; i < 3; ++i) {
    pipeline_->StepOnce();  // the first two images end
  }
  EXPECT_EQ(pipeline_->LastPlan(), Plan({102, 200}));
  LetGoAndExpectOk({many, one});
  EXPECT_EQ(many->images().size(), 6u);
}

TEST_F(BatchingTest, SizesDoNotMix) {
  ImageRequest wide = Seeded(200);
  wide.width = 32;
  const auto one = EnterAndHold(Seeded(100));
  const auto two = Enter(wide), three = Enter(Seeded(300));
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan(), Plan({100, 300})) << "who fits passes who does not, for a while";
  LetGoAndExpectOk({one, two, three});
  EXPECT_FALSE(EverTogether(100, 200));
  EXPECT_FALSE(EverTogether(200, 300));
  EXPECT_TRUE(HasMetric("hotlora_batch_regroup_total{reason=\"size_mismatch\"} 1")) << "once, though steps went by";
}

TEST_F(BatchingTest, WhoHasWaitedLongEnoughIsPassedNoMore) {
  engine_ = nullptr;
  EngineOptions options;
  options.batch.longest_overtaking = absl::ZeroDuration();
  Start(options);
  ImageRequest wide = Seeded(200);
  wide.width = 32;
  const auto one = EnterAndHold(Seeded(100));
  const auto two = Enter(wide), three = Enter(Seeded(300));
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan(), Plan({100}));
  LetGoAndExpectOk({one, two, three});
  EXPECT_FALSE(EverTogether(100, 300)) << "the wide one came first";
}

TEST_F(BatchingTest, MergedOnlyOneSetAtATime) {
  Restart(4, ApplyPolicy::kMerged);
  const auto one = EnterAndHold(Seeded(100, {{"a", 1.0, {}}}));
  const auto two = EnterReady(Seeded(200, {{"b", 1.0, {}}})), three = EnterReady(Seeded(300, {{"a", 1.0, {}}}));
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan(), Plan({100, 300}));
  LetGoAndExpectOk({one, two, three});
  EXPECT_FALSE(EverTogether(100, 200));
  EXPECT_EQ(SideSteps(), 0u);
  EXPECT_TRUE(HasMetric("hotlora_batch_regroup_total{reason=\"adapter_mismatch\"} 1"));
}

TEST_F(BatchingTest, DifferentSetsShareAStepBesideTheWeights) {
  const auto one = EnterAndHold(Seeded(100, {{"a", 1.0, {}}}));
  const auto two = EnterReady(Seeded(200, {{"b", 1.0, {}}}));
  const auto base = Enter(Seeded(300));
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan(), Plan({100, 200, 300}));
  LetGoAndExpectOk({one, two, base});
  EXPECT_GE(SideSteps(), 2u);
}

TEST_F(BatchingTest, OneSetAloneIsMerged) {
  for (int i = 0; i < 3; ++i) {
    Run(Seeded(100 + i, {{"a", 1.0, {}}}));
  }
  EXPECT_EQ(SideSteps(), 0u);
}

TEST_F(BatchingTest, ASetThatStaysAloneIsMergedAgain) {
  ImageRequest lasting = Seeded(100, {{"a", 1.0, {}}});
  lasting.steps = 40;
  const auto one = EnterAndHold(lasting);
  const auto two = EnterReady(Seeded(200, {{"b", 1.0, {}}}));
  LetGoAndExpectOk({one, two});
  const uint32_t side = SideSteps();
  EXPECT_GE(side, 3u);
  EXPECT_LE(side, 15u);
}

TEST_F(BatchingTest, SetsThatCannotShareRunOneAfterTheOther) {
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->unshareable = true;
  }
  const auto one = EnterAndHold(Seeded(100, {{"a", 1.0, {}}}));
  const auto two = EnterReady(Seeded(200, {{"b", 1.0, {}}}));
  LetGoAndExpectOk({one, two});
  EXPECT_FALSE(EverTogether(100, 200));
}

TEST_F(BatchingTest, AFailedStepFailsOnlyTheGuilty) {
  const auto one = EnterAndHold(Seeded(100, {{"a", 1.0, {}}})), guilty = EnterReady(Seeded(200, {{"b", 1.0, {}}})),
             three = Enter(Seeded(300));
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->guilty_seed = 200;
    pipeline_->next_step_error = MakeError(absl::StatusCode::kInternal, "INTERNAL", "broken row");
  }
  pipeline_->LetGo();
  EXPECT_EQ(guilty->AwaitDone().code(), absl::StatusCode::kInternal);
  for (const auto& innocent : {one, three}) {
    EXPECT_EQ(innocent->AwaitDone(), absl::OkStatus());
    const std::vector<ImageProgress> progresses = innocent->progresses();
    ASSERT_EQ(progresses.size(), 3u);
    EXPECT_EQ(progresses[2].step, 3u);
  }
  EXPECT_TRUE(EverTogether(100, 200)) << "the step that failed";
  ExpectNothingHeld();
}

TEST_F(BatchingTest, RowsThatDoNotFitIntoMemoryTogetherRunInSmallerSteps) {
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->most_rows = 2;
  }
  ImageRequest request = Seeded(100, {}, 4);
  request.steps = 10;
  EXPECT_EQ(Run(request)->images().size(), 4u);
  const std::vector<Plan> plans = Plans();
  EXPECT_EQ(std::count_if(plans.begin(), plans.end(), [](const Plan& plan) { return plan.size() > 2; }), 1)
      << "it is not tried again at every step";
  Run(Seeded(200));
}

TEST_F(BatchingTest, ACancelTakesOneRowOutAndLeavesTheOthers) {
  const auto one = EnterAndHold(Seeded(100));
  const auto two = Enter(Seeded(200));
  pipeline_->StepOnce();
  ASSERT_EQ(pipeline_->LastPlan(), Plan({100, 200}));
  engine_->Cancel("100", one.get(), absl::CancelledError("caller left"));
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan(), Plan({200}));
  pipeline_->LetGo();
  EXPECT_EQ(one->AwaitDone().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(two->AwaitDone(), absl::OkStatus());
  ExpectNothingHeld();
}

TEST_F(BatchingTest, OneSwapForEachRequestWhoseSetWasNotInEffect) {
  const auto one = EnterAndHold(Seeded(100, {{"a", 1.0, {}}}));
  const auto two = EnterReady(Seeded(200, {{"b", 1.0, {}}})), three = EnterReady(Seeded(300, {{"a", 1.0, {}}}));
  LetGoAndExpectOk({one, two, three});
  EXPECT_TRUE(HasMetric("hotlora_adapter_swaps_total{outcome=\"ok\"} 2"));
  EXPECT_TRUE(one->summary().swap.changed);
  EXPECT_TRUE(two->summary().swap.changed);
  EXPECT_FALSE(three->summary().swap.changed) << "a was running";
  EXPECT_FALSE(two->summary().swap.merged);
  EXPECT_GT(two->summary().swap.total_seconds, 0.0);
}

TEST_F(BatchingTest, ALostDeviceFailsAllThatRun) {
  const auto one = EnterAndHold(Seeded(100));
  const auto two = Enter(Seeded(200));
  pipeline_->StepOnce();
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->next_step_error = MakeError(absl::StatusCode::kInternal, "DEVICE_FAILED", "lost");
  }
  pipeline_->LetGo();
  EXPECT_EQ(one->AwaitDone().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(two->AwaitDone().code(), absl::StatusCode::kInternal);
  ExpectNothingHeld();
}

}  // namespace
}  // namespace hotlora
