#include <future>
#include <set>

#include "tests/server/serving.h"

namespace hotlora {
namespace {

class AdapterServiceTest : public ServingTest {
 protected:
  void SetUp() override {
    Start();
    stub_ = v1::AdapterService::NewStub(channel_);
    for (int i = 0; i < 120; ++i) {
      AdapterInfo info;
      info.name = absl::StrCat("styles/a", i);
      info.bytes = 1000 + i;
      engine_.AddAdapter(info);
    }
  }

  grpc::Status List(uint32_t page_size, const std::string& token, v1::ListAdaptersResponse* response) {
    auto context = Context();
    v1::ListAdaptersRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    return stub_->ListAdapters(context.get(), request, response);
  }

  std::unique_ptr<v1::AdapterService::Stub> stub_;
};

TEST_F(AdapterServiceTest, PagesThroughEveryAdapterOnce) {
  std::set<std::string> names;
  std::string token;
  int pages = 0;
  do {
    v1::ListAdaptersResponse response;
    ASSERT_TRUE(List(0, token, &response).ok());
    for (const auto& adapter : response.adapters()) {
      EXPECT_TRUE(names.insert(adapter.name()).second) << adapter.name();
    }
    token = response.next_page_token();
    ++pages;
  } while (!token.empty());
  EXPECT_EQ(names.size(), 120u);
  EXPECT_EQ(pages, 3);
}

TEST_F(AdapterServiceTest, TakesTooLargePagesAsTheLargest) {
  v1::ListAdaptersResponse response;
  ASSERT_TRUE(List(4'000'000'000u, "", &response).ok());
  EXPECT_EQ(response.adapters_size(), 120);
  EXPECT_EQ(response.next_page_token(), "");
}

TEST_F(AdapterServiceTest, LastPageOfExactSizeHasNoToken) {
  v1::ListAdaptersResponse response;
  ASSERT_TRUE(List(120, "", &response).ok());
  EXPECT_EQ(response.adapters_size(), 120);
  EXPECT_EQ(response.next_page_token(), "");
}

TEST_F(AdapterServiceTest, RefusesPageTokensOfItsOwnMaking) {
  for (const std::string token : {"x", "!!", "c3R5bGVzL2Ex", "YWZ0ZXI6"}) {
    v1::ListAdaptersResponse response;
    const grpc::Status status = List(0, token, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << token;
    const auto bad = FindDetail<google::rpc::BadRequest>(status);
    ASSERT_TRUE(bad.has_value());
    EXPECT_EQ(bad->field_violations(0).field(), "page_token");
  }
}

TEST_F(AdapterServiceTest, UnreadAdapterHasNoFiguresOfItsContent) {
  auto context = Context();
  v1::GetAdapterRequest request;
  request.set_name("styles/a5");
  v1::Adapter adapter;
  ASSERT_TRUE(stub_->GetAdapter(context.get(), request, &adapter).ok());
  EXPECT_EQ(adapter.bytes(), 1005u);
  EXPECT_EQ(adapter.tier(), v1::ADAPTER_TIER_DISK);
  EXPECT_FALSE(adapter.has_rank_max());
  EXPECT_EQ(adapter.content_sha256(), "");
  EXPECT_NE(Trailer(*context, "x-request-id"), "absent");
}

TEST_F(AdapterServiceTest, UnknownAdapterIsNotFound) {
  auto context = Context();
  v1::GetAdapterRequest request;
  request.set_name("nobody");
  v1::Adapter adapter;
  const grpc::Status status = stub_->GetAdapter(context.get(), request, &adapter);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Reason(status), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(Counted("GetAdapter", "NOT_FOUND"), 1);
}

TEST_F(AdapterServiceTest, LoadAnswersWhenTheEngineDoes) {
  engine_.HoldLoads();
  auto context = Context();
  auto pending = std::async(std::launch::async, [&] {
    v1::LoadAdapterRequest request;
    request.set_name("styles/a1");
    request.set_pin(true);
    v1::Adapter adapter;
    EXPECT_TRUE(stub_->LoadAdapter(context.get(), request, &adapter).ok());
    return adapter;
  });
  engine_.AwaitHeldLoads();
  EXPECT_EQ(Counted("LoadAdapter", "OK"), 0);
  engine_.ReleaseLoads();
  const v1::Adapter adapter = pending.get();
  EXPECT_EQ(adapter.tier(), v1::ADAPTER_TIER_HOST);
  EXPECT_TRUE(adapter.pinned());
  EXPECT_EQ(Counted("LoadAdapter", "OK"), 1);
}

TEST_F(AdapterServiceTest, LoadPassesOnWhyItFailed) {
  engine_.FailLoads("styles/a2", MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_INVALID", "not finite"));
  auto context = Context();
  v1::LoadAdapterRequest request;
  request.set_name("styles/a2");
  v1::Adapter adapter;
  const grpc::Status status = stub_->LoadAdapter(context.get(), request, &adapter);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reason(status), "ADAPTER_INVALID");
}

TEST_F(AdapterServiceTest, LoadRefusesTiersItCannotMean) {
  for (const int tier : {static_cast<int>(v1::ADAPTER_TIER_DISK), 42}) {
    auto context = Context();
    v1::LoadAdapterRequest request;
    request.set_name("styles/a1");
    request.set_tier(static_cast<v1::AdapterTier>(tier));
    v1::Adapter adapter;
    const grpc::Status status = stub_->LoadAdapter(context.get(), request, &adapter);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << tier;
  }
}

TEST_F(AdapterServiceTest, UnloadTakesTheAdapterOffTheTiers) {
  auto load_context = Context();
  v1::LoadAdapterRequest load;
  load.set_name("styles/a1");
  load.set_pin(true);
  v1::Adapter adapter;
  ASSERT_TRUE(stub_->LoadAdapter(load_context.get(), load, &adapter).ok());
  auto context = Context();
  v1::UnloadAdapterRequest request;
  request.set_name("styles/a1");
  ASSERT_TRUE(stub_->UnloadAdapter(context.get(), request, &adapter).ok());
  EXPECT_EQ(adapter.tier(), v1::ADAPTER_TIER_DISK);
  EXPECT_FALSE(adapter.pinned());
}

}  // namespace
}  // namespace hotlora
