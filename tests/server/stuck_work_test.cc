// The server, its probes and a real engine over a fake pipeline, whose work hangs.

#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include <gtest/gtest.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "server/metrics_endpoint.h"
#include "src/engine/engine.h"
#include "src/metrics/metrics.h"
#include "tests/fakes/fake_adapter_store.h"
#include "tests/fakes/fake_embedding_store.h"
#include "tests/fakes/fake_pipeline.h"
#include "tests/server/loopback_connection.h"
#include "tests/server/serving.h"

namespace hotlora {
namespace {

class StuckWorkTest : public ServingTest {
 protected:
  // An engine for which work is stuck after a moment, and hopeless after `giving_up`, or another moment.
  void StartWithEngine(absl::Duration giving_up) {
    ServerOptions options;
    options.on_lost = [this] {
      absl::MutexLock lock(&mu_);
      lost_ = true;
    };
    Start(std::move(options), /*serve=*/false);
    EngineOptions engine_options;
    engine_options.work_limits.least = engine_options.work_limits.unknown = absl::Seconds(1);
    engine_options.work_limits.before_giving_up = giving_up;
    server_->FollowEngine(engine_options);
    real_engine_ = Engine::Create(std::move(engine_options), std::make_unique<FakePipeline>(pipeline_),
                                  std::make_unique<FakeAdapterStore>(store_), MakeEmptyFakeStore(),
                                  std::make_unique<FakeEmbeddingStore>(), &metrics_);
    ASSERT_TRUE(real_engine_->WarmUp().ok());
    server_->Serve(real_engine_.get());
    auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", metrics_, [this] { return server_->readiness().WhyNot(); });
    ASSERT_TRUE(endpoint.ok());
    endpoint_ = *std::move(endpoint);
    stub_ = v1::ImageService::NewStub(channel_);
  }

  void TearDown() override {
    pipeline_->LetGo();
    endpoint_ = nullptr;
    if (!stopped_) {
      server_->Stop(absl::ZeroDuration());  // which needs the engine, and the engine tells the server how it is
    }
    real_engine_ = nullptr;
    server_ = nullptr;
  }

  std::future<grpc::Status> Generate() {
    return std::async(std::launch::async, [this] {
      const auto context = Context();
      v1::GenerateImagesResponse response;
      v1::GenerateImagesRequest request = Request();
      request.set_steps(1);
      return stub_->GenerateImages(context.get(), request, &response);
    });
  }

  // Until health says so, as a watcher hears it.
  void AwaitHealth(grpc::health::v1::HealthCheckResponse::ServingStatus status) {
    const auto context = Context();
    const auto reader = grpc::health::v1::Health::NewStub(channel_)->Watch(context.get(), {});
    grpc::health::v1::HealthCheckResponse response;
    do {
      ASSERT_TRUE(reader->Read(&response));
    } while (response.status() != status);
    context->TryCancel();
  }

  absl::Mutex mu_;
  bool lost_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<FakePipeline::Levers> pipeline_ = std::make_shared<FakePipeline::Levers>();
  std::shared_ptr<FakeAdapterStore::Levers> store_ = std::make_shared<FakeAdapterStore::Levers>();
  bool stopped_ = false;
  std::unique_ptr<Engine> real_engine_;
  std::unique_ptr<MetricsEndpoint> endpoint_;
  std::unique_ptr<v1::ImageService::Stub> stub_;
};

using grpc::health::v1::HealthCheckResponse;

TEST_F(StuckWorkTest, AStuckStepEndsReadinessUntilItGoesOn) {
  StartWithEngine(absl::InfiniteDuration());
  AwaitHealth(HealthCheckResponse::SERVING);
  pipeline_->Hold();
  auto running = Generate();
  AwaitHealth(HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(server_->readiness().WhyNot(), "stuck_step");
  const std::string answer = GetHttp(endpoint_->port(), "/-/ready");
  EXPECT_EQ(answer.find("HTTP/1.1 503"), 0u);
  EXPECT_NE(answer.find("not ready: stuck_step\n"), std::string::npos);
  EXPECT_NE(metrics_.Render().find("hotlora_not_ready{reason=\"stuck_step\"} 1\n"), std::string::npos);
  const grpc::Status refused = Generate().get();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Reason(refused), "WORK_STUCK");

  pipeline_->LetGo();
  EXPECT_TRUE(running.get().ok());
  AwaitHealth(HealthCheckResponse::SERVING);
  EXPECT_EQ(GetHttp(endpoint_->port(), "/-/ready").find("HTTP/1.1 200"), 0u);
  absl::MutexLock lock(&mu_);
  EXPECT_FALSE(lost_);
}

TEST_F(StuckWorkTest, AskedToEndOnceAStuckStepIsHopeless) {
  StartWithEngine(absl::ZeroDuration());
  pipeline_->Hold();
  auto running = Generate();
  {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&lost_));
  }
  pipeline_->LetGo();
  EXPECT_TRUE(running.get().ok());
}

TEST_F(StuckWorkTest, StopDoesNotWaitForAStuckStep) {
  StartWithEngine(absl::InfiniteDuration());
  pipeline_->Hold();
  auto running = Generate();
  pipeline_->AwaitHeld();
  stopped_ = true;
  EXPECT_FALSE(server_->Stop(absl::ZeroDuration()));  // returns although the step is held
  const grpc::Status status = running.get();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Reason(status), "DRAINING");
}

}  // namespace
}  // namespace hotlora
