// Work that hangs: on the device, and on the adapters' disk.

#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"

#include "src/base/error_details.h"
#include "tests/engine/engine_fixture.h"

namespace hotlora {
namespace {

using Call = FakePipeline::Levers::Call;

class StuckWorkTest : public EngineTest {
 protected:
  // Work is stuck after a moment.
  void SetUp() override {
    EngineOptions options;
    options.work_limits.least = options.work_limits.unknown = absl::Seconds(1);
    options.on_stuck_work = [this](absl::Span<const StuckWork> stuck) {
      absl::MutexLock lock(&mu_);
      stuck_.assign(stuck.begin(), stuck.end());
    };
    Start(std::move(options));
  }

  void TearDown() override {
    pipeline_->LetGo();
    store_->LetGo();
    engine_ = nullptr;
  }

  StuckWork AwaitStuck() {
    absl::MutexLock lock(&mu_);
    const auto stuck = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !stuck_.empty(); };
    mu_.Await(absl::Condition(&stuck));
    return stuck_.front();
  }

  void AwaitNoneStuck() {
    absl::MutexLock lock(&mu_);
    const auto none = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stuck_.empty(); };
    mu_.Await(absl::Condition(&none));
  }

  absl::Mutex mu_;
  std::vector<StuckWork> stuck_ ABSL_GUARDED_BY(mu_);
};

TEST_F(StuckWorkTest, EachKindIsToldUntilItGoesOnAndRefusesRequestsMeanwhile) {
  const std::pair<Call, WorkKind> kinds[] = {{Call::kApply, WorkKind::kApply},
                                             {Call::kEncode, WorkKind::kEncode},
                                             {Call::kNone, WorkKind::kStep},
                                             {Call::kDecode, WorkKind::kDecode}};
  for (const auto& [call, kind] : kinds) {
    if (call == Call::kNone) {
      pipeline_->Hold();
    } else {
      pipeline_->Hold(call);
    }
    auto listener = std::make_shared<RecordingListener>();
    // A set that no case before it had, so that it is applied.
    ASSERT_TRUE(Submit(Request("stuck", {{"a", 1.0 + static_cast<int>(kind), {}}}), listener).ok());
    EXPECT_EQ(AwaitStuck().work.kind, kind);
    const absl::Status refused = Submit(Request("late"), std::make_shared<RecordingListener>()).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(GetErrorDetails(refused).reason, "WORK_STUCK");
    EXPECT_GE(GetErrorDetails(refused).retry_delay.value(), absl::Seconds(1));
    pipeline_->LetGo();
    EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
    AwaitNoneStuck();
  }
  Run(Request("after"));
}

TEST_F(StuckWorkTest, ACheckOfTheBaseCanBeStuckToo) {
  pipeline_->Hold(Call::kVerify);
  EXPECT_EQ(AwaitStuck().work.kind, WorkKind::kCheck);
}

TEST_F(StuckWorkTest, AStuckStepIsToldWithItsSize) {
  pipeline_->Hold();
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("one", {}, /*images=*/2), listener).ok());
  const StuckWork stuck = AwaitStuck();
  EXPECT_EQ(stuck.work.shape.width, 16u);
  EXPECT_EQ(stuck.work.shape.rows, 2u);
  EXPECT_EQ(stuck.work.shape.guided_rows, 2u);
  EXPECT_FALSE(stuck.hopeless);
}

TEST_F(StuckWorkTest, DrainEndsRequestsThatAStuckStepHolds) {
  pipeline_->Hold();
  auto running = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("running"), running).ok());
  pipeline_->AwaitHeld();
  auto waiting = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("waiting"), waiting).ok());
  EXPECT_FALSE(engine_->Drain(absl::ZeroDuration()));
  for (const auto& listener : {running, waiting}) {
    EXPECT_EQ(GetErrorDetails(listener->AwaitDone()).reason, "DRAINING");
  }
  pipeline_->LetGo();
  engine_ = nullptr;
  EXPECT_EQ(running->dones(), 1);
  EXPECT_EQ(pipeline_->live_rows, 0);
  EXPECT_EQ(store_->Leases(), 0);
}

TEST_F(StuckWorkTest, ASlowAdapterDiskIsAFigureAndHoldsUpNothingElse) {
  store_->Hold();
  auto loading = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("loading", {{"a", 1.0, {}}}), loading).ok());
  store_->AwaitHeld();
  auto waiting = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("waiting", {{"b", 1.0, {}}}), waiting).ok());
  // OnWaiting comes from the thread that sets the figure, after it did.
  EXPECT_EQ(loading->AwaitWaiting().stage, WaitStage::kAdapter);
  EXPECT_FALSE(HasMetric("hotlora_adapter_job_age_seconds 0"));
  EXPECT_TRUE(HasMetric("hotlora_adapter_jobs_waiting 1"));
  Run(Request("base"));
  EXPECT_EQ(engine_->adapters().List("", 10)->size(), 2u);
  {
    absl::MutexLock lock(&mu_);
    EXPECT_TRUE(stuck_.empty());
  }
  store_->LetGo();
  EXPECT_EQ(loading->AwaitDone(), absl::OkStatus());
  EXPECT_EQ(waiting->AwaitDone(), absl::OkStatus());
}

}  // namespace
}  // namespace hotlora
