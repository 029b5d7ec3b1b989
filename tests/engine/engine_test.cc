#include "src/engine/engine.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/image/image_encoder.h"
#include "tests/engine/engine_fixture.h"

namespace hotlora {
namespace {

TEST_F(EngineTest, EmbeddingsReachTheEncoderOfTheirRequestAlone) {
  ImageRequest request = Request("one");
  request.embeddings = {{"e1", "<s0>"}, {"e2", std::nullopt}};
  const auto listener = Run(request);
  ASSERT_EQ(listener->summary().embeddings.size(), 2u);
  EXPECT_EQ(listener->summary().embeddings[0].name, "e1");
  EXPECT_EQ(listener->summary().embeddings[0].token, "<s0>");
  EXPECT_EQ(listener->summary().embeddings[0].vectors, 2u);
  EXPECT_EQ(listener->summary().embeddings[1].token, "e2");
  EXPECT_EQ(listener->summary().embeddings[1].content_sha256, std::string(64, 'e'));
  {
    absl::MutexLock lock(&pipeline_->mu);
    ASSERT_EQ(pipeline_->embeddings.size(), 2u);
    EXPECT_EQ(pipeline_->embeddings[0].token, "<s0>");
    EXPECT_EQ(pipeline_->embeddings[0].vectors->count, 2u);
  }
  Run(Request("two"));
  absl::MutexLock lock(&pipeline_->mu);
  EXPECT_TRUE(pipeline_->embeddings.empty());
}

TEST_F(EngineTest, AnUnknownEmbeddingEndsTheRequest) {
  ImageRequest request = Request("one", {{"a", 1, {}}});
  request.embeddings = {{"none", std::nullopt}};
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(request, listener).ok());
  const absl::Status status = listener->AwaitDone();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetErrorDetails(status).reason, "EMBEDDING_NOT_FOUND");
  ExpectNothingHeld();
}

TEST_F(EngineTest, GivesProgressThenImagesThenSummary) {
  const auto listener = Run(Request("one", {{"a", 0.5, {}}}, 2));
  ASSERT_EQ(listener->progresses().size(), 6u);
  EXPECT_EQ(listener->progresses()[5].step, 3u);
  EXPECT_EQ(listener->progresses()[5].image_index, 1u);
  EXPECT_EQ(listener->progresses()[5].total_steps, 3u);
  ASSERT_EQ(listener->images().size(), 2u);
  EXPECT_EQ(listener->images()[1].seed, 8u);
  EXPECT_EQ(listener->images()[1].data.substr(1, 3), "PNG");
  const ImageSummary summary = listener->summary();
  ASSERT_EQ(summary.adapters.size(), 1u);
  EXPECT_EQ(summary.adapters[0].name, "a");
  EXPECT_EQ(summary.adapters[0].weight, 0.5);
  EXPECT_EQ(summary.model_sha256, std::string(64, 'f'));
  EXPECT_GT(summary.total_seconds, 0);
  ExpectNothingHeld();
}

TEST_F(EngineTest, TwoEvaluationsOfHeunAreOneStepOfProgress) {
  ImageRequest request = Request("one");
  request.sampler = Sampler::kHeun;
  const auto evaluations = [this] {
    absl::MutexLock lock(&pipeline_->mu);
    return pipeline_->steps_run;
  };
  const uint32_t before = evaluations();  // the warm-up's
  const auto listener = Run(request);
  const std::vector<ImageProgress> progresses = listener->progresses();
  ASSERT_EQ(progresses.size(), 3u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(progresses[i].step, i + 1);
  }
  EXPECT_EQ(evaluations() - before, 5u);
}

TEST_F(EngineTest, WhatARequestHeldIsFreeBeforeOnEnd) {
  struct Checking : RecordingListener {
    explicit Checking(EngineTest* t) : test(t) {}
    void OnEnd(const absl::Status& status, const ImageSummary& summary) override {
      test->ExpectNothingHeld();
      RecordingListener::OnEnd(status, summary);
    }
    EngineTest* test;
  };
  auto listener = std::make_shared<Checking>(this);
  ASSERT_TRUE(Submit(Request("one", {{"a", 1.0, {}}}, 3), listener).ok());
  EXPECT_TRUE(listener->AwaitDone().ok());
}

TEST_F(EngineTest, MoreImagesThanABatchRunInSeveralBatches) {
  const auto listener = Run(Request("ten", {}, 10));
  EXPECT_EQ(listener->images().size(), 10u);
  absl::MutexLock lock(&pipeline_->mu);
  EXPECT_EQ(pipeline_->largest_plan, 4u);
}

TEST_F(EngineTest, EqualAdapterSetIsNoSwap) {
  Run(Request("one", {{"a", 1.0, {}}}));
  Run(Request("two", {{"a", 1.0, {}}}));
  Run(Request("three", {{"a", 0.5, {}}}));
  Run(Request("four"));
  Run(Request("five", {{"b", 0.0, {}}}));
  absl::MutexLock lock(&pipeline_->mu);
  EXPECT_EQ(pipeline_->applied.size(), 3u);
  EXPECT_TRUE(HasMetric("hotlora_adapter_swaps_total{outcome=\"ok\"} 3"));
  EXPECT_TRUE(HasMetric("hotlora_adapter_swap_duration_seconds_count{phase=\"total\",source=\"disk\"} 2"));
}

TEST_F(EngineTest, UnknownAdapterFailsThatRequestAlone) {
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("bad", {{"a", 1.0, {}}, {"nowhere", 1.0, {}}}), listener).ok());
  const absl::Status status = listener->AwaitDone();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetErrorDetails(status).reason, "ADAPTER_NOT_FOUND");
  EXPECT_TRUE(HasMetric("hotlora_adapter_swaps_total{outcome=\"error\"} 1"));
  ExpectNothingHeld();
  Run(Request("good"));
}

TEST_F(EngineTest, UnknownAdapterIsToldWhileAnotherRequestRuns) {
  pipeline_->Hold();
  auto running = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("running"), running).ok());
  pipeline_->AwaitHeld();
  auto bad = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("bad", {{"nowhere", 1.0, {}}}), bad).ok());
  EXPECT_EQ(bad->AwaitDone().code(), absl::StatusCode::kNotFound);
  pipeline_->LetGo();
  EXPECT_TRUE(running->AwaitDone().ok());
}

TEST_F(EngineTest, ARequestThatLoadsDoesNotHoldUpOneThatIsReady) {
  store_->Hold();
  auto loading = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("loading", {{"a", 1.0, {}}}), loading).ok());
  store_->AwaitHeld();
  Run(Request("ready"));
  store_->LetGo();
  EXPECT_TRUE(loading->AwaitDone().ok());
}

TEST_F(EngineTest, WhatIsResidentDoesNotWaitForAFileThatIsRead) {
  {
    absl::MutexLock lock(&store_->mu);
    store_->resident = {"b"};
  }
  store_->Hold();
  auto loading = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("loading", {{"a", 1.0, {}}}), loading).ok());
  store_->AwaitHeld();
  Run(Request("resident", {{"b", 1.0, {}}}));
  EXPECT_EQ(loading->dones(), 0);
  store_->LetGo();
  EXPECT_TRUE(loading->AwaitDone().ok());
}

TEST_F(EngineTest, ASetThatDoesNotFitBesideThoseInUseWaitsForThem) {
  {
    absl::MutexLock lock(&store_->mu);
    store_->most_leases = 1;
  }
  pipeline_->Hold();
  auto running = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("running", {{"a", 1.0, {}}}), running).ok());
  pipeline_->AwaitHeld();
  auto waiting = std::make_shared<RecordingListener>(), unwanted = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("waiting", {{"b", 1.0, {}}}), waiting).ok());
  ASSERT_TRUE(Submit(Request("unwanted", {{"b", 1.0, {}}}), unwanted).ok());
  engine_->Cancel("unwanted", unwanted.get(), absl::CancelledError("caller left"));
  EXPECT_EQ(unwanted->AwaitDone().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->dones(), 0);
  pipeline_->LetGo();
  EXPECT_TRUE(running->AwaitDone().ok());
  EXPECT_TRUE(waiting->AwaitDone().ok());
  ExpectNothingHeld();
}

TEST_F(EngineTest, StepErrorFailsThatRequestAlone) {
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->guilty_seed = 8;  // of the second image
    pipeline_->next_step_error = MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", "no memory");
  }
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("bad", {{"a", 1.0, {}}}, 2), listener).ok());
  EXPECT_EQ(listener->AwaitDone().code(), absl::StatusCode::kResourceExhausted);
  ExpectNothingHeld();
  Run(Request("good"));
}

TEST_F(EngineTest, DecodeErrorFailsThatRequestAlone) {
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->next_decode_error = absl::InternalError("not finite");
  }
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("bad", {}, 2), listener).ok());
  EXPECT_EQ(listener->AwaitDone().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(listener->images().empty());
  ExpectNothingHeld();
  Run(Request("good"));
}

TEST_F(EngineTest, CancelTakesEffectWithinOneStep) {
  pipeline_->Hold();
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("one", {{"a", 1.0, {}}}), listener).ok());
  pipeline_->AwaitHeld();
  engine_->Cancel("one", listener.get(), absl::CancelledError("caller left"));
  pipeline_->LetGo();
  EXPECT_EQ(listener->AwaitDone().code(), absl::StatusCode::kCancelled);
  EXPECT_LE(listener->progresses().size(), 1u);
  ExpectNothingHeld();
}

TEST_F(EngineTest, CancelWhileWaitingIsImmediate) {
  pipeline_->Hold();
  auto running = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("running"), running).ok());
  pipeline_->AwaitHeld();
  auto waiting = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("waiting", {{"a", 1.0, {}}}), waiting).ok());
  engine_->Cancel("waiting", waiting.get(), absl::DeadlineExceededError("too late"));
  EXPECT_EQ(waiting->AwaitDone().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(running->dones(), 0);
  pipeline_->LetGo();
  EXPECT_TRUE(running->AwaitDone().ok());
  ExpectNothingHeld();
}

TEST_F(EngineTest, CancelWhileAdaptersLoadGivesThemBack) {
  store_->Hold();
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("one", {{"a", 1.0, {}}, {"b", 1.0, {}}}), listener).ok());
  store_->AwaitHeld();
  engine_->Cancel("one", listener.get(), absl::CancelledError("caller left"));
  EXPECT_EQ(listener->dones(), 0);
  store_->LetGo();
  EXPECT_EQ(listener->AwaitDone().code(), absl::StatusCode::kCancelled);
  ExpectNothingHeld();
}

TEST_F(EngineTest, CancelOfAnEndedRequestSparesTheNextOfTheSameId) {
  const auto ended = Run(Request("same"));
  pipeline_->Hold();
  auto next = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("same"), next).ok());
  pipeline_->AwaitHeld();
  engine_->Cancel("same", ended.get(), absl::CancelledError("late"));
  pipeline_->LetGo();
  EXPECT_TRUE(next->AwaitDone().ok());
}

TEST_F(EngineTest, SameRequestIdWhileItRunsAlreadyExists) {
  pipeline_->Hold();
  auto first = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("same"), first).ok());
  auto second = std::make_shared<RecordingListener>();
  EXPECT_EQ(Submit(Request("same"), second).status().code(), absl::StatusCode::kAlreadyExists);
  pipeline_->LetGo();
  EXPECT_TRUE(first->AwaitDone().ok());
  EXPECT_EQ(second->dones(), 0);
  Run(Request("same"));
}

TEST_F(EngineTest, BadRequestNeverReachesTheListener) {
  ImageRequest request = Request("bad");
  request.steps = 0;
  auto listener = std::make_shared<RecordingListener>();
  EXPECT_EQ(Submit(request, listener).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(listener->dones(), 0);
}

TEST_F(EngineTest, DrainFinishesWhatRunsAndRefusesTheRest) {
  pipeline_->Hold();
  auto running = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("running"), running).ok());
  pipeline_->AwaitHeld();
  std::thread drain([this] { EXPECT_TRUE(engine_->Drain(absl::InfiniteDuration())); });
  absl::Status refused;
  for (int i = 0; refused.code() != absl::StatusCode::kUnavailable; ++i) {  // until Drain has begun
    refused = Submit(Request(absl::StrCat("late", i)), std::make_shared<RecordingListener>()).status();
  }
  EXPECT_EQ(GetErrorDetails(refused).reason, "DRAINING");
  EXPECT_TRUE(GetErrorDetails(refused).retry_delay.has_value());
  pipeline_->LetGo();
  drain.join();
  EXPECT_TRUE(running->AwaitDone().ok());
}

TEST_F(EngineTest, DrainCancelsWhatOutlastsItsTime) {
  pipeline_->Hold();
  auto running = std::make_shared<RecordingListener>();
  auto waiting = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("running"), running).ok());
  pipeline_->AwaitHeld();
  ASSERT_TRUE(Submit(Request("waiting"), waiting).ok());
  std::thread drain([this] { EXPECT_FALSE(engine_->Drain(absl::ZeroDuration())); });
  EXPECT_EQ(waiting->AwaitDone().code(), absl::StatusCode::kUnavailable);
  pipeline_->LetGo();
  drain.join();
  EXPECT_EQ(running->AwaitDone().code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineTest, PriorityComesBeforeArrival) {
  pipeline_->Hold();
  auto running = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("running"), running).ok());
  pipeline_->AwaitHeld();
  std::vector<std::shared_ptr<RecordingListener>> listeners;
  for (const auto& [id, priority] : {std::pair{"low", -1}, {"first", 0}, {"second", 0}, {"high", 5}}) {
    ImageRequest request = Request(id);
    request.priority = priority;
    listeners.push_back(std::make_shared<RecordingListener>());
    ASSERT_TRUE(Submit(request, listeners.back()).ok());
  }
  pipeline_->LetGo();
  for (const auto& listener : listeners) {
    EXPECT_TRUE(listener->AwaitDone().ok());
  }
  absl::MutexLock lock(&pipeline_->mu);
  const std::vector<std::string> order(pipeline_->prompts.end() - 4, pipeline_->prompts.end());
  EXPECT_EQ(order, (std::vector<std::string>{"high", "first", "second", "low"}));
}

TEST_F(EngineTest, LosingTheDeviceIsToldOnce) {
  engine_ = nullptr;
  EngineOptions options;
  std::atomic<int> told = 0;
  options.on_device_failure = [&told] { ++told; };
  Start(options);
  const absl::Status lost = MakeError(absl::StatusCode::kInternal, "DEVICE_FAILED", "lost");
  for (absl::Status* error : {&pipeline_->next_row_error, &pipeline_->next_step_error}) {
    {
      absl::MutexLock lock(&pipeline_->mu);
      *error = lost;
    }
    auto listener = std::make_shared<RecordingListener>();
    ASSERT_TRUE(Submit(Request("one"), listener).ok());
    EXPECT_EQ(listener->AwaitDone().code(), absl::StatusCode::kInternal);
    EXPECT_EQ(told, 1);
  }
}

TEST_F(EngineTest, FullQueueTurnsCallersAwayWithARetryDelay) {
  engine_ = nullptr;
  EngineOptions options;
  options.max_queue = 2;
  Start(options);
  pipeline_->Hold();
  std::vector<std::shared_ptr<RecordingListener>> admitted;
  const auto submit = [&](const std::string& id) {
    auto listener = std::make_shared<RecordingListener>();
    const auto admission = Submit(Request(id), listener);
    if (admission.ok()) {
      admitted.push_back(listener);
    }
    return admission;
  };
  ASSERT_TRUE(submit("running").ok());
  pipeline_->AwaitHeld();
  EXPECT_EQ(submit("first")->queue_position, 1u);
  EXPECT_EQ(submit("second")->queue_position, 2u);
  const absl::Status refused = submit("third").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetails(refused).reason, "QUEUE_FULL");
  EXPECT_GE(GetErrorDetails(refused).retry_delay.value(), absl::Seconds(1));
  pipeline_->LetGo();
  for (const auto& listener : admitted) {
    EXPECT_TRUE(listener->AwaitDone().ok());
  }
  Run(Request("third"));
}

TEST_F(EngineTest, ACallerWhoFillsHisShareKeepsNoOtherOut) {
  engine_ = nullptr;
  EngineOptions options;
  options.max_queue = 8;
  options.client_share = 2;
  Start(options);
  pipeline_->Hold();
  std::vector<std::shared_ptr<RecordingListener>> admitted;
  const auto submit = [&](const std::string& id, const std::string& caller) {
    auto listener = std::make_shared<RecordingListener>();
    ImageRequest request = Request(id);
    request.caller = caller;
    const absl::Status status = Submit(request, listener).status();
    if (status.ok()) {
      admitted.push_back(listener);
    }
    return status;
  };
  ASSERT_TRUE(submit("running", "attacker").ok());
  pipeline_->AwaitHeld();
  int refused = 0;
  for (int i = 0; i < 50; ++i) {
    const absl::Status status = submit(absl::StrCat("flood", i), "attacker");
    if (!status.ok()) {
      ++refused;
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
      EXPECT_EQ(GetErrorDetails(status).reason, "CLIENT_SHARE");
      EXPECT_GE(GetErrorDetails(status).retry_delay.value(), absl::Seconds(1));
    }
  }
  EXPECT_EQ(refused, 48);
  EXPECT_TRUE(submit("good", "good").ok());
  pipeline_->LetGo();
  for (const auto& listener : admitted) {
    EXPECT_TRUE(listener->AwaitDone().ok());
  }
}

TEST_F(EngineTest, TimeLimitEndsARequestThatWaits) {
  engine_ = nullptr;
  EngineOptions options;
  options.max_request_time = absl::Milliseconds(50);
  Start(options);
  store_->Hold();
  auto loading = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("loading", {{"a", 1.0, {}}}), loading).ok());
  store_->AwaitHeld();
  auto waiting = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(Request("waiting", {{"b", 1.0, {}}}), waiting).ok());
  EXPECT_EQ(waiting->AwaitDone().code(), absl::StatusCode::kDeadlineExceeded);
  store_->LetGo();
  EXPECT_EQ(loading->AwaitDone().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(EngineTest, ChecksTheBaseWhileIdleAndCountsAMismatch) {
  EXPECT_TRUE(HasMetric("hotlora_base_restore_mismatch_total 0"));
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->corrupt = true;
    const uint32_t before = pipeline_->modules_verified;
    const auto verified = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return pipeline_->modules_verified > before + FakePipeline::kModules;
    };
    pipeline_->mu.Await(absl::Condition(&verified));
  }
  EXPECT_TRUE(HasMetric("hotlora_base_restore_mismatch_total 1"));
  const BaseReport base = engine_->Statistics().base;
  EXPECT_EQ(base.mismatches, 1u);
  EXPECT_EQ(base.repaired, 1u);
  EXPECT_TRUE(base.intact);
  Run(Request("after"));
}

TEST_F(EngineTest, VerifyBaseReportsOneRound) {
  const auto verify = [this] {
    absl::Notification done;
    absl::StatusOr<BaseReport> report;
    engine_->VerifyBase([&](absl::StatusOr<BaseReport> answer) {
      report = std::move(answer);
      done.Notify();
    });
    done.WaitForNotification();
    return report.value();
  };
  BaseReport report = verify();
  EXPECT_EQ(report.modules_checked, FakePipeline::kModules);
  EXPECT_EQ(report.mismatches, 0u);
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->corrupt = true;
  }
  report = verify();
  EXPECT_EQ(report.mismatches, 1u);
  EXPECT_EQ(report.repaired, 1u);
  EXPECT_TRUE(report.intact);
}

TEST_F(EngineTest, VerifyBaseGetsAModuleBetweenTwoStepsOfABusyServer) {
  pipeline_->Hold();
  ImageRequest request = Request("long");
  request.steps = 100;
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(request, listener).ok());
  pipeline_->AwaitHeld();
  absl::Notification done;
  engine_->VerifyBase([&](const absl::StatusOr<BaseReport>& report) {
    EXPECT_TRUE(report.ok());
    EXPECT_EQ(listener->dones(), 0);
    done.Notify();
  });
  pipeline_->LetGo();
  done.WaitForNotification();
  EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
}

TEST_F(EngineTest, ABaseThatCannotBeMadeAnewStopsRequestsUntilItCan) {
  engine_ = nullptr;
  absl::Mutex mu;
  std::vector<bool> states;
  EngineOptions options;
  options.on_base_state = [&](bool intact) {
    absl::MutexLock lock(&mu);
    states.push_back(intact);
  };
  Start(options);
  const auto await = [&](size_t count) {
    absl::MutexLock lock(&mu);
    const auto enough = [&] { return states.size() >= count; };
    mu.Await(absl::Condition(&enough));
    return states.back();
  };
  const auto corrupt = [&](bool irreparable) {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->corrupt = true;
    pipeline_->irreparable = irreparable;
  };
  corrupt(true);
  EXPECT_FALSE(await(1));
  const absl::Status refused = Submit(Request("one"), std::make_shared<RecordingListener>()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetErrorDetails(refused).reason, "BASE_DAMAGED");
  corrupt(false);
  EXPECT_TRUE(await(2));
  Run(Request("two"));
}

TEST_F(EngineTest, StormOfCancelsLeavesNothingHeld) {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([this, caller] {
      for (int i = 0; i < 50; ++i) {
        const std::string id = absl::StrCat(caller, "-", i);
        auto listener = std::make_shared<RecordingListener>();
        const std::vector<AdapterRef> adapters =
            i % 3 == 0 ? std::vector<AdapterRef>{} : std::vector<AdapterRef>{{i % 2 == 0 ? "a" : "b", 1.0, {}}};
        if (Submit(Request(id, adapters, 1 + i % 2), listener).ok()) {
          if (i % 4 != 0) {
            engine_->Cancel(id, listener.get(), absl::CancelledError("storm"));
          }
          (void)listener->AwaitDone();
          EXPECT_EQ(listener->dones(), 1);
        }
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  ExpectNothingHeld();
  Run(Request("after"));
}

std::string Png(uint32_t width, uint32_t height) {
  return *EncodeImage({width, height, std::vector<uint8_t>(size_t{width} * height * 3, 99)}, ImageFormat::kPng, 90, "");
}

TEST_F(EngineTest, AnInitImageIsDecodedOnceAndFreeAtTheEnd) {
  ImageRequest request = Request("one", {}, 3);
  request.init_image = Png(40, 33);
  request.steps = 10;
  request.strength = 0.2;
  const auto listener = Run(request);
  EXPECT_EQ(listener->images().size(), 3u);
  EXPECT_EQ(listener->progresses().size(), 6u);
  EXPECT_EQ(listener->progresses()[0].total_steps, 2u);
  EXPECT_EQ(listener->summary().width, 40u);
  ExpectNothingHeld();
  absl::MutexLock lock(&pipeline_->mu);
  ASSERT_EQ(pipeline_->init_sizes.size(), 1u);
  EXPECT_EQ(pipeline_->init_sizes[0], std::pair(40u, 32u));
}

TEST_F(EngineTest, StepsGoOnWhileAnInitImageIsEncoded) {
  uint32_t warm_up_steps = 0;
  {
    absl::MutexLock lock(&pipeline_->mu);
    warm_up_steps = pipeline_->steps_run;
  }
  pipeline_->Hold(FakePipeline::Levers::Call::kEncodeInit);
  ImageRequest request = Request("with init");
  request.init_image = Png(16, 16);
  request.strength = 1.0;
  auto with_init = std::make_shared<RecordingListener>(), without = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(request, with_init).ok());
  pipeline_->AwaitHeld(FakePipeline::Levers::Call::kEncodeInit);
  ASSERT_TRUE(Submit(Request("without"), without).ok());
  {
    absl::MutexLock lock(&pipeline_->mu);
    const auto stepped = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return pipeline_->steps_run == warm_up_steps + 3; };
    EXPECT_TRUE(pipeline_->mu.AwaitWithTimeout(absl::Condition(&stepped), absl::Minutes(1)));
  }
  pipeline_->LetGo();
  EXPECT_EQ(with_init->AwaitDone(), absl::OkStatus());
  EXPECT_EQ(without->AwaitDone(), absl::OkStatus());
  ExpectNothingHeld();
}

TEST_F(EngineTest, ADeviceThatIsLostWhileAnInitImageIsEncodedIsTold) {
  engine_ = nullptr;
  std::atomic<int> told = 0;
  EngineOptions options;
  options.on_device_failure = [&] { ++told; };
  Start(options);
  {
    absl::MutexLock lock(&pipeline_->mu);
    pipeline_->next_init_error = MakeError(absl::StatusCode::kInternal, "DEVICE_FAILED", "lost");
  }
  ImageRequest request = Request("one");
  request.init_image = Png(16, 16);
  request.strength = 1.0;
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(request, listener).ok());
  EXPECT_EQ(listener->AwaitDone().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(told, 1) << "before its caller learns of it";
  ExpectNothingHeld();
}

TEST_F(EngineTest, AnInitImageThatCannotBeDecodedEndsTheRequestAsABadField) {
  ImageRequest request = Request("one", {{"a", 1.0, {}}});
  const std::string png = Png(40, 32);
  request.init_image = png.substr(0, png.size() - 20);
  request.strength = 1.0;
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(Submit(request, listener).ok());
  const absl::Status status = listener->AwaitDone();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "INVALID_REQUEST");
  ASSERT_EQ(details.violations.size(), 1u);
  EXPECT_EQ(details.violations[0].field, "init_image");
  ExpectNothingHeld();
  EXPECT_EQ(Run(Request("one"))->images().size(), 1u);
}

TEST_F(EngineTest, PreviewsComeEveryNthStep) {
  ImageRequest request = Request("one");
  request.steps = 5;
  request.preview_every = 2;
  const auto progresses = Run(request)->progresses();
  ASSERT_EQ(progresses.size(), 5u);
  for (const ImageProgress& progress : progresses) {
    EXPECT_EQ(progress.preview.empty(), progress.step % 2 != 0) << progress.step;
  }
  EXPECT_EQ(progresses[1].preview.substr(0, 2), "\xFF\xD8");
  for (const ImageProgress& progress : Run(Request("two"))->progresses()) {
    EXPECT_TRUE(progress.preview.empty());
  }
}

}  // namespace
}  // namespace hotlora
