// The client's library against the real server with a fake engine behind it.

#include "client/image_client.h"

#include "client/error_report.h"
#include "tests/server/serving.h"

namespace hotlora {
namespace {

class ImageClientTest : public ServingTest {
 protected:
  void SetUp() override {
    Start();
    ConnectionOptions options;
    options.server = absl::StrCat("127.0.0.1:", server_->port());
    options.timeout_seconds = 60;
    auto client = ImageClient::Create(options);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  std::unique_ptr<ImageClient> client_;
};

TEST(AdapterKeyTest, IsTheNamesInTheRequestsOrder) {
  v1::GenerateImagesRequest request;
  EXPECT_EQ(AdapterKey(request), "base");
  request.add_adapters()->set_name("styles/neon");
  request.add_adapters()->set_name("ink");
  EXPECT_EQ(AdapterKey(request), "styles/neon,ink");
  request.add_adapters()->set_name("cafe\u0301, (v2)");
  request.add_adapters()->set_name("a+b");
  request.add_adapters()->set_name("\u6c34\u5f69");
  EXPECT_EQ(AdapterKey(request), "styles/neon,ink,caf%C3%A9%2C%20%28v2%29,a%2Bb,%E6%B0%B4%E5%BD%A9");
  request.clear_adapters();
  request.add_adapters()->set_name("no\nname");
  EXPECT_EQ(AdapterKey(request), "no%0Aname");
}

TEST_F(ImageClientTest, PutsTheImagesTogether) {
  engine_.SetScript([](const FakeEngine::Submission& submission) {
    submission.listener->OnWaiting({1, WaitStage::kQueue, 0});
    submission.listener->OnProgress({0, 1, 1, 0.1});
    submission.listener->OnImage(ImageOf(1, 100));
    submission.listener->OnImage(ImageOf(0, size_t{5} << 20));
    ImageSummary summary;
    summary.total_seconds = 2;
    submission.listener->OnEnd(absl::OkStatus(), summary);
  });
  auto request = Request();
  request.set_num_images(2);
  request.set_request_id("c1");
  int progress = 0;
  GeneratedImages images;
  const CallResult result = client_->Generate(
      request, [&](const v1::GenerateImagesEvent& event) { progress += event.has_progress() ? 1 : 0; }, images);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.request_id, "c1");
  EXPECT_EQ(progress, 1);
  EXPECT_EQ(images.accepted.seed(), 7u);
  ASSERT_EQ(images.images.size(), 2u);
  EXPECT_EQ(images.images[0].data(), ImageOf(0, size_t{5} << 20).data);
  EXPECT_EQ(images.images[1].data(), ImageOf(1, 100).data);
  EXPECT_EQ(images.summary.total_seconds(), 2);
}

TEST_F(ImageClientTest, MissingImagesAreAnError) {
  engine_.SetScript([](const FakeEngine::Submission& submission) {
    submission.listener->OnImage(ImageOf(1, 100));
    submission.listener->OnEnd(absl::OkStatus(), {});
  });
  for (const uint32_t asked : {2u, 3u}) {
    auto request = Request();
    request.set_num_images(asked);
    GeneratedImages images;
    EXPECT_EQ(client_->Generate(request, nullptr, images).status.error_code(), grpc::StatusCode::DATA_LOSS);
  }
}

TEST_F(ImageClientTest, RetriesNothingByItself) {
  engine_.RefuseNext(
      MakeError(absl::StatusCode::kUnavailable, "busy", ErrorDetails{"DRAINING", {}, absl::Milliseconds(1)}));
  GeneratedImages images;
  const CallResult result = client_->Generate(Request(), nullptr, images);
  EXPECT_EQ(MakeErrorReport(result.status, "").reason, "DRAINING");
  EXPECT_EQ(engine_.submit_count(), 1);
}

TEST_F(ImageClientTest, ListsMoreThanAPageOfAdapters) {
  for (int i = 0; i < 1500; ++i) {
    AdapterInfo info;
    info.name = absl::StrCat("a", i);
    engine_.AddAdapter(info);
  }
  std::vector<v1::Adapter> adapters;
  ASSERT_TRUE(client_->ListAdapters(&adapters).status.ok());
  EXPECT_EQ(adapters.size(), 1500u);
}

TEST_F(ImageClientTest, LooksAfterAdapters) {
  AdapterInfo info;
  info.name = "ink";
  engine_.AddAdapter(info);
  v1::Adapter adapter;
  ASSERT_TRUE(client_->LoadAdapter("ink", true, &adapter).status.ok());
  EXPECT_TRUE(adapter.pinned());
  ASSERT_TRUE(client_->GetAdapter("ink", &adapter).status.ok());
  EXPECT_EQ(adapter.tier(), v1::ADAPTER_TIER_HOST);
  ASSERT_TRUE(client_->UnloadAdapter("ink", &adapter).status.ok());
  EXPECT_EQ(adapter.tier(), v1::ADAPTER_TIER_DISK);
  const CallResult unknown = client_->GetAdapter("nobody", &adapter);
  EXPECT_EQ(MakeErrorReport(unknown.status, "").reason, "ADAPTER_NOT_FOUND");
}

TEST_F(ImageClientTest, AsksForHealthAndInfo) {
  bool serving = false;
  ASSERT_TRUE(client_->IsServing(&serving).status.ok());
  EXPECT_TRUE(serving);
  v1::ServerInfo info;
  ASSERT_TRUE(client_->GetServerInfo(&info).status.ok());
  EXPECT_EQ(info.model(), "fake");
  server_->StopServing();
  ASSERT_TRUE(client_->IsServing(&serving).status.ok());
  EXPECT_FALSE(serving);
}

TEST_F(ImageClientTest, NoServerIsUnavailable) {
  ConnectionOptions options;
  options.server = absl::StrCat("127.0.0.1:", server_->port());
  server_ = nullptr;
  v1::ServerInfo info;
  const auto client = ImageClient::Create(options);
  ASSERT_TRUE(client.ok());
  EXPECT_EQ((*client)->GetServerInfo(&info).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace hotlora
