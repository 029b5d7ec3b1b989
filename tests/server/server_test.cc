#include "server/server.h"

#include <unistd.h>

#include <future>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/server/loopback_connection.h"
#include "tests/server/serving.h"

namespace hotlora {
namespace {

namespace health = grpc::health::v1;

class ServerTest : public ServingTest {
 protected:
  health::HealthCheckResponse::ServingStatus Health(const std::string& service) {
    auto context = Context();
    health::HealthCheckRequest request;
    request.set_service(service);
    health::HealthCheckResponse response;
    const grpc::Status status = health::Health::NewStub(channel_)->Check(context.get(), request, &response);
    return status.ok() ? response.status() : health::HealthCheckResponse::UNKNOWN;
  }

  grpc::Status GetInfo(v1::ServerInfo* info, const std::string& token = "") {
    auto context = Context(token);
    return v1::ServerService::NewStub(channel_)->GetServerInfo(context.get(), {}, info);
  }

  // Whether the caller is told apart from one without rights; the adapters do not exist.
  grpc::StatusCode CodeOf(const std::string& method, const std::string& token) {
    auto context = Context(token);
    const auto adapters = v1::AdapterService::NewStub(channel_);
    v1::Adapter adapter;
    if (method == "GetAdapter") {
      return adapters->GetAdapter(context.get(), {}, &adapter).error_code();
    }
    if (method == "LoadAdapter") {
      return adapters->LoadAdapter(context.get(), {}, &adapter).error_code();
    }
    if (method == "UnloadAdapter") {
      return adapters->UnloadAdapter(context.get(), {}, &adapter).error_code();
    }
    if (method == "ListAdapters") {
      v1::ListAdaptersResponse response;
      return adapters->ListAdapters(context.get(), {}, &response).error_code();
    }
    if (method == "GetServerInfo") {
      v1::ServerInfo info;
      return v1::ServerService::NewStub(channel_)->GetServerInfo(context.get(), {}, &info).error_code();
    }
    const auto images = v1::ImageService::NewStub(channel_);
    if (method == "GenerateImages") {
      v1::GenerateImagesResponse response;
      return images->GenerateImages(context.get(), Request(), &response).error_code();
    }
    auto reader = images->StreamGenerateImages(context.get(), Request());
    v1::GenerateImagesEvent event;
    while (reader->Read(&event)) {
    }
    return reader->Finish().error_code();
  }
};

TEST_F(ServerTest, HealthFollowsTheEngine) {
  Start({}, /*serve=*/false);
  const std::string services[] = {"", "hotlora.v1.ImageService", "hotlora.v1.AdapterService",
                                  "hotlora.v1.ServerService", "hotlora.openai.v1.ImagesService"};
  for (const std::string& service : services) {
    EXPECT_EQ(Health(service), health::HealthCheckResponse::NOT_SERVING) << service;
  }
  EXPECT_EQ(Health("live"), health::HealthCheckResponse::SERVING);
  server_->Serve(&engine_);
  for (const std::string& service : services) {
    EXPECT_EQ(Health(service), health::HealthCheckResponse::SERVING) << service;
  }
  server_->StopServing();
  for (const std::string& service : services) {
    EXPECT_EQ(Health(service), health::HealthCheckResponse::NOT_SERVING) << service;
  }
  EXPECT_EQ(Health("live"), health::HealthCheckResponse::SERVING);
}

TEST_F(ServerTest, CallsBeforeTheEngineHearThatItStarts) {
  Start({}, /*serve=*/false);
  auto context = Context();
  v1::GenerateImagesResponse response;
  const grpc::Status status = v1::ImageService::NewStub(channel_)->GenerateImages(context.get(), Request(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Reason(status), "STARTING");
  EXPECT_EQ(Trailer(*context, "grpc-retry-pushback-ms"), "1000");
}

TEST_F(ServerTest, TellsModelAndLimits) {
  engine_.mutable_options().max_queue = 5;
  engine_.mutable_options().max_request_time = absl::Seconds(9);
  ServerOptions options;
  options.max_message_bytes = 1 << 20;
  Start(std::move(options));
  v1::ServerInfo info;
  ASSERT_TRUE(GetInfo(&info).ok());
  EXPECT_EQ(info.version(), HOTLORA_VERSION);
  EXPECT_EQ(info.model(), "fake");
  EXPECT_EQ(info.native_width(), 512u);
  EXPECT_EQ(info.limits().max_queue(), 5u);
  EXPECT_EQ(info.limits().max_request_seconds(), 9);
  EXPECT_EQ(info.limits().max_message_bytes(), 1u << 20);
  EXPECT_EQ(info.limits().max_images(), 16u);
  EXPECT_EQ(Counted("GetServerInfo", "OK"), 1);
}

TEST_F(ServerTest, TokensGuardEveryMethodButHealth) {
  ServerOptions options;
  const auto tokens = Tokens::Parse(
      "painter-token-001 generate\nreader-token-0001 adapters.read\nwriter-token-0001 "
      "adapters.write\n"
      "admin-token-00001 admin\n");
  ASSERT_TRUE(tokens.ok());
  options.tokens = *tokens;
  options.guesses.free_guesses = 1000;
  Start(std::move(options));
  engine_.SetScript([](const FakeEngine::Submission& s) { s.listener->OnEnd(absl::OkStatus(), {}); });
  struct Case {
    const char* method;
    const char* allowed;
  };
  const Case cases[] = {{"GenerateImages", "painter"}, {"StreamGenerateImages", "painter"}, {"ListAdapters", "reader"},
                        {"GetAdapter", "reader"},      {"LoadAdapter", "writer"},           {"UnloadAdapter", "writer"},
                        {"GetServerInfo", "everybody"}};
  for (const Case& c : cases) {
    EXPECT_EQ(CodeOf(c.method, ""), grpc::StatusCode::UNAUTHENTICATED) << c.method;
    EXPECT_EQ(CodeOf(c.method, "no-such-token-000"), grpc::StatusCode::UNAUTHENTICATED) << c.method;
    for (const std::string token :
         {"painter-token-001", "reader-token-0001", "writer-token-0001", "admin-token-00001"}) {
      const bool allowed = absl::StartsWith(token, c.allowed) || absl::StartsWith(token, "admin") ||
                           std::string(c.allowed) == "everybody";
      EXPECT_EQ(CodeOf(c.method, token) != grpc::StatusCode::PERMISSION_DENIED, allowed) << c.method << " " << token;
    }
  }
  EXPECT_EQ(Health(""), health::HealthCheckResponse::SERVING);
}

TEST_F(ServerTest, EchoesTheCallersRequestIdAndMakesOneUpElse) {
  Start();
  const auto stub = v1::ServerService::NewStub(channel_);
  v1::ServerInfo info;
  auto context = Context();
  context->AddMetadata("x-request-id", "from-proxy-17");
  ASSERT_TRUE(stub->GetServerInfo(context.get(), {}, &info).ok());
  EXPECT_EQ(Trailer(*context, "x-request-id"), "from-proxy-17");
  auto long_id = Context();
  long_id->AddMetadata("x-request-id", std::string(65, 'x'));
  ASSERT_TRUE(stub->GetServerInfo(long_id.get(), {}, &info).ok());
  EXPECT_EQ(Trailer(*long_id, "x-request-id").size(), 32u);
}

TEST_F(ServerTest, HealthAnswersBesideFiveHundredIdleConnections) {
  constexpr int kIdle = 500;
  RaiseFileLimit();  // both ends of each connection are open in this process
  Start();
  EXPECT_EQ(Health(""), health::HealthCheckResponse::SERVING);
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const std::string settings(9, '\0');
  // What they say before they fall silent.
  const std::string openings[] = {"", "PRI * HT", preface, preface + settings.substr(0, 3) + '\4' + settings.substr(4)};
  std::vector<int> idle;
  for (int i = 0; i < kIdle; ++i) {
    idle.push_back(ConnectToLoopback(server_->port(), 10));
    const std::string& opening = openings[i % 4];
    send(idle.back(), opening.data(), opening.size(), MSG_NOSIGNAL);
    if (i % 100 == 99) {
      EXPECT_EQ(Health(""), health::HealthCheckResponse::SERVING) << "beside " << i + 1;
    }
  }
  EXPECT_TRUE(server_->readiness().ready());
  for (const int connection : idle) {
    close(connection);
  }
}

TEST_F(ServerTest, CallsGoOnWhileTheAdaptersDiskHangs) {
  Start();
  engine_.SetScript([](const FakeEngine::Submission& s) { s.listener->OnEnd(absl::OkStatus(), {}); });
  engine_.HoldLists(true);
  std::vector<std::future<grpc::StatusCode>> lists;
  for (int i = 0; i < 40; ++i) {  // more than gRPC has threads
    lists.push_back(std::async(std::launch::async, [this] { return CodeOf("ListAdapters", ""); }));
  }
  engine_.AwaitHeldList();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Health(""), health::HealthCheckResponse::SERVING);
    EXPECT_EQ(CodeOf("GetServerInfo", ""), grpc::StatusCode::OK);
    EXPECT_EQ(CodeOf("GenerateImages", ""), grpc::StatusCode::OK);
  }
  engine_.HoldLists(false);
  for (auto& list : lists) {
    EXPECT_EQ(list.get(), grpc::StatusCode::OK);
  }
}

// The descriptor of this process that listens on the port.
int ListenerOn(int port) {
  for (int descriptor = 0; descriptor < 4096; ++descriptor) {
    int listens = 0;
    sockaddr_in address{};
    socklen_t size = sizeof(listens), address_size = sizeof(address);
    if (getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens == 1 &&
        getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &address_size) == 0 &&
        ntohs(address.sin_port) == port) {
      return descriptor;
    }
  }
  return -1;
}

TEST_F(ServerTest, AListenerThatHearsNothingEndsReadiness) {
  Start();
  EXPECT_EQ(Health(""), health::HealthCheckResponse::SERVING);  // connected
  auto context = Context();
  const auto reader = health::Health::NewStub(channel_)->Watch(context.get(), {});
  health::HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  ASSERT_EQ(shutdown(ListenerOn(server_->port()), SHUT_RDWR), 0);
  ASSERT_TRUE(reader->Read(&response));  // after the probe's patience, some seconds
  EXPECT_EQ(response.status(), health::HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(server_->readiness().WhyNot(), "listener_deaf");
  context->TryCancel();
}

TEST_F(ServerTest, SecondServerOnThePortIsRefused) {
  Start();
  ServerOptions options;
  options.listen = absl::StrCat("127.0.0.1:", server_->port());
  const auto second = Server::Start(std::move(options), &metrics_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().message().find("--listen 127.0.0.1:"), 0u) << second.status();
}

TEST_F(ServerTest, ReflectionIsOffUnlessAsked) {
  for (const bool reflection : {false, true}) {
    ServerOptions options;
    options.reflection = reflection;
    Start(std::move(options));
    // An empty stream: only whether the method is there shows.
    grpc::ClientContext context;
    grpc::internal::RpcMethod method("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                     grpc::internal::RpcMethod::BIDI_STREAMING, channel_);
    using Message = google::protobuf::Any;  // never sent
    std::unique_ptr<grpc::ClientReaderWriter<Message, Message>> stream(
        grpc::internal::ClientReaderWriterFactory<Message, Message>::Create(channel_.get(), method, &context));
    stream->WritesDone();
    EXPECT_EQ(stream->Finish().error_code(), reflection ? grpc::StatusCode::OK : grpc::StatusCode::UNIMPLEMENTED);
  }
}

TEST_F(ServerTest, StopLetsRunningRequestsFinish) {
  Start();
  const auto stub = v1::ImageService::NewStub(channel_);
  auto context = Context();
  auto reader = stub->StreamGenerateImages(context.get(), Request());
  const auto submission = engine_.AwaitSubmission();
  auto stopped = std::async(std::launch::async, [&] { return server_->Stop(absl::Seconds(60)); });
  engine_.AwaitDrain();
  EXPECT_EQ(Health(""), health::HealthCheckResponse::NOT_SERVING);
  auto late_context = Context();
  v1::GenerateImagesResponse response;
  const grpc::Status late = stub->GenerateImages(late_context.get(), Request(), &response);
  EXPECT_EQ(late.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Reason(late), "DRAINING");

  submission.listener->OnImage(ImageOf(0, 10));
  submission.listener->OnEnd(absl::OkStatus(), {});
  v1::GenerateImagesEvent event;
  bool summary = false;
  while (reader->Read(&event)) {
    summary = event.has_summary();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(summary);
  EXPECT_TRUE(stopped.get());
}

TEST_F(ServerTest, StopRefusesCallsWhileTheyStillComeEvenIfNothingRuns) {
  Start();
  const auto stub = v1::ImageService::NewStub(channel_);
  v1::ServerInfo info;
  ASSERT_TRUE(GetInfo(&info).ok());
  auto stopped = std::async(std::launch::async, [&] { return server_->Stop(absl::Seconds(60)); });
  engine_.AwaitDrain();
  // A balancer that has not looked at the health yet: as long as it sends calls, each is told to go elsewhere.
  for (int i = 0; i < 20; ++i) {
    auto context = Context();
    v1::GenerateImagesResponse response;
    const grpc::Status late = stub->GenerateImages(context.get(), Request(), &response);
    EXPECT_EQ(late.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(Reason(late), "DRAINING");
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_TRUE(stopped.get());
}

TEST_F(ServerTest, StopDoesNotWaitForHealthWatchers) {
  Start();
  auto context = Context();
  health::HealthCheckRequest request;
  auto reader = health::Health::NewStub(channel_)->Watch(context.get(), request);
  health::HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), health::HealthCheckResponse::SERVING);
  EXPECT_TRUE(server_->Stop(absl::Hours(24)));
  while (reader->Read(&response)) {
    EXPECT_EQ(response.status(), health::HealthCheckResponse::NOT_SERVING);
  }
}

TEST_F(ServerTest, RequestThatIsStillHeldWhenTheCallIsOverIsHarmless) {
  Start();
  auto context = Context();
  v1::GenerateImagesResponse response;
  auto pending = std::async(std::launch::async, [&] {
    return v1::ImageService::NewStub(channel_)->GenerateImages(context.get(), Request(), &response).ok();
  });
  auto submission = engine_.AwaitSubmission();
  submission.listener->OnEnd(absl::OkStatus(), {});
  EXPECT_TRUE(pending.get());
  server_ = nullptr;
  submission.listener = nullptr;  // the engine lets go after the server is gone
}

}  // namespace
}  // namespace hotlora
