#include "server/server_info_service.h"

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/server/serving.h"

namespace hotlora {
namespace {

constexpr char kReader[] = "0123456789abcdef", kAdmin[] = "fedcba9876543210", kPainter[] = "aaaaaaaaaaaaaaaa";

class ServerInfoServiceTest : public ServingTest {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.tokens =
        Tokens::Parse(absl::StrCat(kReader, " adapters.read\n", kAdmin, " admin\n", kPainter, " generate\n")).value();
    Start(std::move(options));
    stub_ = v1::ServerService::NewStub(channel_);
  }

  std::unique_ptr<v1::ServerService::Stub> stub_;
};

TEST_F(ServerInfoServiceTest, StatisticsSayWhatTheEngineSays) {
  EngineStatistics statistics;
  statistics.memory = {{"unet weights", "cpu", 100}};
  statistics.device_memory.allocated = 150;
  TierStatistics host;
  host.capacity_bytes = 1000;
  host.bytes = 30;
  host.hits = 7;
  statistics.adapters.tiers = {host};
  AdapterStatistics adapter;
  adapter.info.name = "neon";
  adapter.counts.requests = 5;
  adapter.counts.last_used = absl::FromUnixNanos(1'500'000'000);
  statistics.adapters.adapters = {adapter};
  statistics.base.mismatches = 2;
  statistics.queue_depth = 3;
  engine_.SetStatistics(statistics);
  auto context = Context(kReader);
  v1::Statistics answer;
  ASSERT_TRUE(stub_->GetStatistics(context.get(), {}, &answer).ok());
  ASSERT_EQ(answer.memory_size(), 2);
  EXPECT_EQ(answer.memory(0).what(), "unet weights");
  EXPECT_EQ(answer.memory(0).used_bytes(), 100u);
  EXPECT_EQ(answer.memory(1).where(), "host");
  EXPECT_EQ(answer.memory(1).planned_bytes(), 1000u);
  EXPECT_EQ(answer.memory(1).used_bytes(), 30u);
  EXPECT_EQ(answer.device_memory().allocated_bytes(), 150u);
  EXPECT_EQ(answer.tiers(0).tier(), v1::ADAPTER_TIER_HOST);
  EXPECT_EQ(answer.tiers(0).hits(), 7u);
  EXPECT_EQ(answer.adapters(0).adapter().name(), "neon");
  EXPECT_EQ(answer.adapters(0).requests(), 5u);
  EXPECT_EQ(answer.adapters(0).last_used().seconds(), 1);
  EXPECT_EQ(answer.adapters(0).last_used().nanos(), 500'000'000);
  EXPECT_EQ(answer.base().mismatches(), 2u);
  EXPECT_EQ(answer.queue_depth(), 3u);
  EXPECT_EQ(Counted("GetStatistics", "OK"), 1);
}

TEST_F(ServerInfoServiceTest, VerifyBaseAnswersWithTheRound) {
  auto context = Context(kAdmin);
  v1::BaseIntegrity integrity;
  ASSERT_TRUE(stub_->VerifyBase(context.get(), {}, &integrity).ok());
  EXPECT_EQ(integrity.modules_checked(), 3u);
  EXPECT_EQ(integrity.repaired(), 1u);
  EXPECT_TRUE(integrity.intact());
  EXPECT_EQ(Counted("VerifyBase", "OK"), 1);
}

TEST_F(ServerInfoServiceTest, EachCallHasItsScope) {
  v1::Statistics statistics;
  v1::BaseIntegrity integrity;
  EXPECT_EQ(stub_->GetStatistics(Context(kPainter).get(), {}, &statistics).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(stub_->VerifyBase(Context(kReader).get(), {}, &integrity).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(stub_->GetStatistics(Context().get(), {}, &statistics).error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(ServerInfoServiceTest, DamagedBaseWeightsAreNotReady) {
  const auto serving = [this] {
    auto context = Context();
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(grpc::health::v1::Health::NewStub(channel_)->Check(context.get(), {}, &response).ok());
    return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
  };
  EXPECT_TRUE(serving());
  EngineOptions options;
  server_->FollowEngine(options);
  options.on_base_state(false);
  EXPECT_FALSE(serving());
  options.on_base_state(true);
  EXPECT_TRUE(serving());
  server_->StopServing();
  options.on_base_state(true);
  EXPECT_FALSE(serving());
}

}  // namespace
}  // namespace hotlora
