#ifndef HOTLORA_TESTS_ENGINE_ENGINE_FIXTURE_H_
#define HOTLORA_TESTS_ENGINE_ENGINE_FIXTURE_H_

// An engine over a fake pipeline and a fake adapter store with the adapters "a" and "b".

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "src/engine/engine.h"
#include "src/metrics/metrics.h"
#include "tests/fakes/fake_adapter_store.h"
#include "tests/fakes/fake_embedding_store.h"
#include "tests/fakes/fake_pipeline.h"
#include "tests/fakes/recording_listener.h"

namespace hotlora {

class EngineTest : public ::testing::Test {
 public:
  void Start(EngineOptions options) {
    for (const char* name : {"a", "b"}) {
      store_->Add(name);
    }
    engine_ = Engine::Create(std::move(options), std::make_unique<FakePipeline>(pipeline_),
                             std::make_unique<FakeAdapterStore>(store_), std::make_unique<FakeAdapterStore>(controls_),
                             std::make_unique<FakeEmbeddingStore>(), &metrics_);
    ASSERT_TRUE(engine_->WarmUp().ok());
  }
  void SetUp() override { Start({}); }

  static ImageRequest Request(const std::string& id, std::vector<AdapterRef> adapters = {}, uint32_t images = 1) {
    ImageRequest request;
    request.request_id = id;
    request.prompt = id;
    request.steps = 3;
    request.seed = 7;
    request.num_images = images;
    request.adapters = std::move(adapters);
    return request;
  }

  absl::StatusOr<Admission> Submit(const ImageRequest& request, const std::shared_ptr<RecordingListener>& listener) {
    return engine_->Submit(request, listener, [](const Admission&) {});
  }

  // Submits, and expects to be admitted.
  std::shared_ptr<RecordingListener> Enter(const ImageRequest& request) {
    auto listener = std::make_shared<RecordingListener>();
    EXPECT_TRUE(Submit(request, listener).ok());
    return listener;
  }

  // Lets held calls go on, and expects that all these requests succeed and that nothing stays.
  void LetGoAndExpectOk(const std::vector<std::shared_ptr<RecordingListener>>& listeners) {
    pipeline_->LetGo();
    for (const auto& listener : listeners) {
      EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
    }
    ExpectNothingHeld();
  }

  // Submits, waits for the end and expects success.
  std::shared_ptr<RecordingListener> Run(const ImageRequest& request) {
    auto listener = std::make_shared<RecordingListener>();
    const auto admission = Submit(request, listener);
    EXPECT_TRUE(admission.ok()) << admission.status();
    if (admission.ok()) {
      EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
    }
    return listener;
  }

  void ExpectNothingHeld() {
    EXPECT_EQ(pipeline_->live_rows, 0);
    EXPECT_EQ(pipeline_->live_conditionings, 0);
    EXPECT_EQ(pipeline_->live_inits, 0);
    EXPECT_EQ(pipeline_->live_controls, 0);
    EXPECT_EQ(pipeline_->live_image_prompts, 0);
    EXPECT_EQ(store_->Leases(), 0);
    EXPECT_EQ(controls_->Leases(), 0);
    EXPECT_EQ(engine_->queue_depth(), 0u);
  }

  // The seeds of each step's rows, those of the warm-up first.
  std::vector<std::vector<uint64_t>> Plans() {
    absl::MutexLock lock(&pipeline_->mu);
    return pipeline_->plans;
  }

  bool HasMetric(const std::string& line) { return metrics_.Render().find("\n" + line + "\n") != std::string::npos; }

  std::shared_ptr<FakePipeline::Levers> pipeline_ = std::make_shared<FakePipeline::Levers>();
  std::shared_ptr<FakeAdapterStore::Levers> store_ = std::make_shared<FakeAdapterStore::Levers>();
  std::shared_ptr<FakeAdapterStore::Levers> controls_ = std::make_shared<FakeAdapterStore::Levers>();
  Metrics metrics_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_ENGINE_ENGINE_FIXTURE_H_
