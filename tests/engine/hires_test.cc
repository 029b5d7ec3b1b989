// A hires pass: two passes of one request, with a decode and an encode between them.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "src/base/error_details.h"
#include "tests/engine/engine_fixture.h"

namespace hotlora {
namespace {

using Call = FakePipeline::Levers::Call;
using Listener = std::shared_ptr<RecordingListener>;

class HiresTest : public EngineTest {
 protected:
  void Restart(uint32_t max_batch, absl::Duration longest_overtaking = absl::InfiniteDuration(),
               ApplyPolicy apply = ApplyPolicy::kAuto) {
    engine_ = nullptr;
    EngineOptions options;
    options.batch.max_batch = max_batch;
    options.batch.longest_overtaking = longest_overtaking;
    options.batch.apply = apply;
    Start(options);
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->plans.clear();
    pipeline_->plan_sets.clear();
  }
  void SetUp() override { Restart(4); }

  // 16x16 with 3 steps, then 32x32 with 2 of 4.
  static ImageRequest Hires(uint64_t seed, std::vector<AdapterRef> adapters = {}, uint32_t images = 1) {
    ImageRequest request = Request(std::to_string(seed), std::move(adapters), images);
    request.seed = seed;
    request.hires.emplace();
    request.hires->steps = 4;
    return request;
  }
  static ImageRequest Plain(uint64_t seed) {
    ImageRequest request = Request(std::to_string(seed));
    request.seed = seed;
    return request;
  }
};

TEST_F(HiresTest, TheSecondPassBeginsWithTheLargerImage) {
  const Listener one = Run(Hires(7));
  ASSERT_EQ(one->images().size(), 1u);
  EXPECT_EQ(one->images()[0].width, 32u);
  EXPECT_EQ(one->images()[0].seed, 7u);
  EXPECT_EQ(one->summary().width, 32u);
  EXPECT_EQ(one->summary().height, 32u);
  std::vector<uint32_t> steps;
  for (const ImageProgress& progress : one->progresses()) {
    EXPECT_EQ(progress.total_steps, 5u);
    steps.push_back(progress.step);
  }
  EXPECT_EQ(steps, (std::vector<uint32_t>{1, 2, 3, 4, 5}));
  ExpectNothingHeld();
  absl::MutexLock lock(&pipeline_->mu);
  EXPECT_EQ(pipeline_->init_sizes, (std::vector<std::pair<uint32_t, uint32_t>>{{32, 32}}));
  EXPECT_EQ(pipeline_->plans.size(), 5u);
  EXPECT_EQ(pipeline_->prompts.back(), "7") << "the text is encoded once";
}

TEST_F(HiresTest, EachImageGoesThroughBothPasses) {
  for (const uint32_t max_batch : {1, 2, 4}) {
    Restart(max_batch);
    const Listener many = Run(Hires(7, {{"a", 1.0, {}}}, 5));
    EXPECT_EQ(many->images().size(), 5u) << max_batch;
    EXPECT_EQ(many->progresses().size(), 25u) << max_batch;
    ExpectNothingHeld();
  }
}

TEST_F(HiresTest, OthersStepBetweenThePasses) {
  pipeline_->Hold(Call::kEncodeInit);
  const Listener hires = Enter(Hires(7));
  pipeline_->AwaitHeld(Call::kEncodeInit);
  const Listener other = Enter(Plain(100));
  {
    absl::MutexLock lock(&pipeline_->mu);
    const auto stepped = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return pipeline_->plans.size() == 6; };
    EXPECT_TRUE(pipeline_->mu.AwaitWithTimeout(absl::Condition(&stepped), absl::Minutes(1)));
  }
  EXPECT_FALSE(hires->IsDone());
  LetGoAndExpectOk({hires, other});
}

// Its second pass is of another size than what runs, but of an earlier request.
TEST_F(HiresTest, TheSecondPassDoesNotStarve) {
  Restart(2, absl::ZeroDuration());
  pipeline_->Hold();
  const Listener hires = Enter(Hires(7));
  pipeline_->AwaitHeld();
  std::vector<Listener> all = {hires};
  for (uint64_t seed = 100; seed < 120; ++seed) {
    all.push_back(Enter(Plain(seed)));
  }
  LetGoAndExpectOk(all);
  uint32_t last_of_hires = 0, after = 0;
  const std::vector<std::vector<uint64_t>> plans = Plans();
  for (uint32_t i = 0; i < plans.size(); ++i) {
    last_of_hires = plans[i] == std::vector<uint64_t>{7} ? i : last_of_hires;
  }
  after = static_cast<uint32_t>(plans.size()) - last_of_hires - 1;
  EXPECT_GE(after, 10u) << "most of the later requests come behind it";
}

TEST_F(HiresTest, RangesOfAdaptersActAgainInTheSecondPass) {
  for (const ApplyPolicy apply : {ApplyPolicy::kMerged, ApplyPolicy::kSide}) {
    Restart(2, absl::InfiniteDuration(), apply);
    ImageRequest request = Hires(7);
    request.steps = 4;
    request.adapters.push_back({"a", 1.0, {}});
    request.adapters.back().start = 0.5;
    Run(request);
    absl::MutexLock lock(&pipeline_->mu);
    std::vector<bool> has_adapter;
    for (const auto& sets : pipeline_->plan_sets) {
      has_adapter.push_back(sets.front() != pipeline_->plan_sets.front().front());
    }
    EXPECT_EQ(has_adapter, (std::vector<bool>{false, false, true, true, false, true}));
  }
}

// The range of the adapter holds no evaluation of the second pass's two, so the text is without it there.
TEST_F(HiresTest, TheTextIsEncodedAgainIfAnAdapterChangesItInOnePassAlone) {
  for (const bool changes_text : {true, false}) {
    Restart(4);
    {
      absl::MutexLock lock(&store_->mu);
      store_->adapters["a"].targets = {changes_text ? "text_encoder" : "unet"};
    }
    ImageRequest request = Hires(7);
    request.steps = 4;
    request.adapters.push_back({"a", 1.0, {}});
    request.adapters.back().start = 0.25;
    request.adapters.back().end = 0.5;
    pipeline_->Hold();
    const Listener one = Enter(request);
    pipeline_->AwaitHeld();
    EXPECT_EQ(pipeline_->live_conditionings, changes_text ? 2 : 1);
    LetGoAndExpectOk({one});
  }
}

TEST_F(HiresTest, ACancelBetweenThePassesLeavesNothing) {
  for (const Call call : {Call::kDecode, Call::kEncodeInit}) {
    Restart(2);
    pipeline_->Hold(call);
    const Listener one = Enter(Hires(7, {{"a", 1.0, {}}}));
    pipeline_->AwaitHeld(call);
    engine_->Cancel("7", one.get(), absl::CancelledError("caller left"));
    pipeline_->LetGo();
    EXPECT_EQ(one->AwaitDone().code(), absl::StatusCode::kCancelled);
    EXPECT_TRUE(one->images().empty());
    ExpectNothingHeld();
  }
}

TEST_F(HiresTest, ACancelInTheSecondPassTakesEffectWithinOneStep) {
  pipeline_->Hold();
  const Listener one = Enter(Hires(7, {{"a", 1.0, {}}}));
  pipeline_->AwaitHeld();
  for (int i = 0; i < 3; ++i) {
    pipeline_->StepOnce();
  }
  engine_->Cancel("7", one.get(), absl::CancelledError("caller left"));
  pipeline_->LetGo();
  EXPECT_EQ(one->AwaitDone().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Plans().size(), 4u);
  ExpectNothingHeld();
}

TEST_F(HiresTest, AnErrorBetweenThePassesEndsThatRequestAlone) {
  for (const bool at_decode : {true, false}) {
    Restart(4);
    pipeline_->Hold();
    const Listener bad = Enter(Hires(7, {{"a", 1.0, {}}}));
    pipeline_->AwaitHeld();
    const Listener good = Enter(Plain(100));
    {
      absl::MutexLock lock(&pipeline_->mu);
      const absl::Status error = MakeError(absl::StatusCode::kInternal, "NOT_FINITE", "not finite");
      (at_decode ? pipeline_->next_decode_error : pipeline_->next_init_error) = error;
    }
    pipeline_->LetGo();
    EXPECT_EQ(bad->AwaitDone().code(), absl::StatusCode::kInternal);
    EXPECT_EQ(good->AwaitDone(), absl::OkStatus());
    ExpectNothingHeld();
    EXPECT_EQ(Run(Hires(8))->images().size(), 1u);
  }
}

TEST_F(HiresTest, AStormOfCancelsLeavesNothingHeld) {
  for (int round = 0; round < 30; ++round) {
    std::vector<Listener> all;
    for (uint64_t seed = 0; seed < 6; ++seed) {
      all.push_back(Enter(Hires(seed, {{seed % 2 == 0 ? "a" : "b", 1.0, {}}}, 2)));
    }
    for (uint64_t seed = 0; seed < 6; seed += 2) {
      engine_->Cancel(std::to_string(seed), all[seed].get(), absl::CancelledError("caller left"));
    }
    for (const Listener& listener : all) {
      listener->AwaitDone().IgnoreError();
      EXPECT_EQ(listener->dones(), 1);
    }
    ExpectNothingHeld();
  }
}

}  // namespace
}  // namespace hotlora
