// Which rows share a denoising step, seen from outside of the engine.

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
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
  bool EverTogether(uint64_t a, uint64_t b) {
    const std::vector<Plan> plans = Plans();
    return std::any_of(plans.begin(), plans.end(), [&](const Plan& plan) {
      return std::count(plan.begin(), plan.end(), a) + std::count(plan.begin(), plan.end(), b) == 2;
    });
  }
  // How many steps mixed rows of different sets, and how many of them in side mode is SideSteps.
  uint32_t MixedSteps() {
    absl::MutexLock lock(&pipeline_->mu);
    return static_cast<uint32_t>(
        std::count_if(pipeline_->plan_sets.begin(), pipeline_->plan_sets.end(), [](const auto& sets) {
          return std::any_of(sets.begin(), sets.end(), [&](const std::string& set) { return set != sets.front(); });
        }));
  }
  // The adapter sets of the steps that the seed's row ran in alone.
  std::vector<std::string> SetsOf(uint64_t seed) {
    absl::MutexLock lock(&pipeline_->mu);
    std::vector<std::string> sets;
    for (size_t step = 0; step < pipeline_->plans.size(); ++step) {
      if (pipeline_->plans[step] == Plan({seed})) {
        sets.push_back(pipeline_->plan_sets[step].front());
      }
    }
    return sets;
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

// Eight steps; the adapters act in their ranges, and on the UNet alone.
ImageRequest Ranged(uint64_t seed, const std::vector<std::tuple<const char*, double, double>>& adapters,
                    uint32_t images = 1) {
  ImageRequest request = EngineTest::Request(std::to_string(seed), {}, images);
  request.seed = seed;
  request.steps = 8;
  for (const auto& [name, start, end] : adapters) {
    AdapterRef& ref = request.adapters.emplace_back();
    ref.name = name;
    ref.text_encoder_weight = 0.0;
    ref.start = start;
    ref.end = end;
  }
  return request;
}

TEST_F(BatchingTest, ARequestWhoseSetChangesIsMergedAndCountsEachChange) {
  const auto one = Run(Ranged(100, {{"a", 0.0, 0.5}, {"b", 0.5, 1.0}}));
  EXPECT_EQ(SideSteps(), 0u);
  EXPECT_TRUE(HasMetric("hotlora_adapter_swaps_total{outcome=\"ok\"} 2"));
  EXPECT_TRUE(one->summary().swap.changed);
  EXPECT_TRUE(one->summary().swap.merged);
  const std::vector<std::string> sets = SetsOf(100);
  ASSERT_EQ(sets.size(), 8u);
  absl::MutexLock lock(&pipeline_->mu);
  ASSERT_EQ(pipeline_->applied.size(), 2u);
  for (size_t step = 0; step < 8; ++step) {
    EXPECT_EQ(sets[step], pipeline_->applied[step / 4]) << step;
  }
}

// 2 N - 1 evaluations, so half of five lies inside the second step.
TEST_F(BatchingTest, ASetMayChangeBetweenTheTwoEvaluationsOfAStep) {
  ImageRequest request = Ranged(100, {{"a", 0.0, 0.6}});
  request.sampler = Sampler::kHeun;
  request.steps = 3;
  const auto one = Run(request);
  EXPECT_EQ(one->progresses().size(), 3u);
  std::string acts;
  for (const std::string& set : SetsOf(100)) {
    acts += set.empty() ? '0' : '1';
  }
  EXPECT_EQ(acts, "11100") << "three of five, and the third is the first of two";
}

TEST_F(BatchingTest, MergedEqualSetsInEqualRangesShareSteps) {
  Restart(4, ApplyPolicy::kMerged);
  const auto blocker = EnterAndHold(Seeded(50));
  const auto one = EnterReady(Ranged(100, {{"a", 0.0, 0.5}})), two = EnterReady(Ranged(200, {{"a", 0.0, 0.5}}));
  LetGoAndExpectOk({blocker, one, two});
  EXPECT_TRUE(EverTogether(100, 200));
  EXPECT_EQ(MixedSteps(), 0u);
}

// Rows that would part later never meet, all requests end, and nothing is swapped back and forth.
TEST_F(BatchingTest, MergedRowsNeverPart) {
  Restart(4, ApplyPolicy::kMerged);
  const auto blocker = EnterAndHold(Seeded(50));
  const std::vector<Listener> listeners = {
      blocker,
      EnterReady(Ranged(100, {{"a", 0.0, 0.5}}, 6)),
      EnterReady(Ranged(200, {{"a", 0.0, 1.0}}, 3)),
      EnterReady(Ranged(300, {{"a", 0.0, 0.5}, {"b", 0.5, 1.0}}, 2)),
      EnterReady(Ranged(400, {{"b", 0.25, 0.75}})),
  };
  LetGoAndExpectOk(listeners);
  EXPECT_EQ(MixedSteps(), 0u);
  EXPECT_EQ(SideSteps(), 0u);
  EXPECT_EQ(listeners[1]->images().size(), 6u);
}

TEST_F(BatchingTest, RowsWhoseSetsPartGoOnBesideTheWeights) {
  const auto one = EnterAndHold(Ranged(100, {{"a", 0.0, 0.5}}));
  const auto two = EnterReady(Ranged(200, {{"a", 0.0, 0.5}})), three = EnterReady(Ranged(300, {{"b", 0.5, 1.0}}));
  pipeline_->StepOnce();
  EXPECT_EQ(pipeline_->LastPlan(), Plan({100, 200, 300}));
  LetGoAndExpectOk({one, two, three});
  EXPECT_GT(MixedSteps(), 0u);
  EXPECT_GE(SideSteps(), MixedSteps()) << "a step of several sets is never merged";
}

TEST_F(BatchingTest, RequestsByRangeThatCannotShareWaitForEachOther) {
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->unshareable = true;
  }
  const auto one = EnterAndHold(Ranged(100, {{"a", 0.0, 0.5}}, 5));
  const auto two = EnterReady(Ranged(200, {{"a", 0.5, 1.0}})), three = EnterReady(Seeded(300, {{"b", 1.0, {}}}));
  LetGoAndExpectOk({one, two, three});
  EXPECT_EQ(MixedSteps(), 0u);
}

TEST_F(BatchingTest, BlocksMakeAnotherSet) {
  Restart(4, ApplyPolicy::kMerged);
  ImageRequest blocks = Seeded(200, {{"a", 1.0, {}}}), same = Seeded(300, {{"a", 1.0, {}}});
  blocks.adapters[0].blocks = {{"down_blocks.1", 0.5}, {"mid_block", 0.0}};
  same.adapters[0].blocks = {{"mid_block", 0.0}, {"down_blocks.1", 0.5}};
  const auto one = EnterAndHold(Seeded(100, {{"a", 1.0, {}}}));
  const auto two = EnterReady(blocks), three = EnterReady(same);
  LetGoAndExpectOk({one, two, three});
  EXPECT_FALSE(EverTogether(100, 200));
  EXPECT_TRUE(EverTogether(200, 300)) << "in whatever order the blocks are given";
}

TEST_F(BatchingTest, ALeaseLastsAsLongAsTheRequest) {
  const auto one = EnterAndHold(Ranged(100, {{"a", 0.0, 0.25}, {"b", 0.75, 1.0}}));
  EXPECT_EQ(store_->Leases(), 2);
  for (int i = 0; i < 4; ++i) {
    pipeline_->StepOnce();
  }
  EXPECT_EQ(store_->Leases(), 2);
  LetGoAndExpectOk({one});
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
