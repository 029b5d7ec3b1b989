// What every call has in common, seen from outside: ids in and out, the access log's line, figures, and who may set the
// log level.

#include <unistd.h>

#include <algorithm>
#include <future>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "src/base/logging.h"
#include "tests/server/serving.h"

namespace hotlora {
namespace {

constexpr char kTrace[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr char kAdmin[] = "0123456789abcdef-admin";
constexpr char kReader[] = "0123456789abcdef-reader";

class RpcCallTest : public ServingTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(pipe(pipe_), 0);
    log_ = std::make_unique<AccessLog>(pipe_[1], /*owned=*/true);
    ServerOptions options = Options();
    options.access_log = log_.get();
    options.guesses.delay = absl::ZeroDuration();
    Start(std::move(options));
  }

  void TearDown() override {
    server_ = nullptr;
    log_ = nullptr;
    close(pipe_[0]);
    SetLogLevel("info").IgnoreError();
  }

  virtual ServerOptions Options() const { return {}; }

  static std::string Initial(const grpc::ClientContext& context, const std::string& key) {
    const auto found = context.GetServerInitialMetadata().find(key);
    return found == context.GetServerInitialMetadata().end() ? "absent"
                                                             : std::string(found->second.data(), found->second.size());
  }

  // The lines so far. Ends the log.
  std::vector<nlohmann::json> Lines() {
    server_ = nullptr;
    log_ = nullptr;
    std::string text;
    char buffer[4096];
    for (ssize_t got; (got = read(pipe_[0], buffer, sizeof(buffer))) > 0;) {
      text.append(buffer, static_cast<size_t>(got));
    }
    std::vector<nlohmann::json> lines;
    for (const auto& line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line));
    }
    return lines;
  }

  bool Shows(const std::string& line) {
    return ("\n" + metrics_.Render()).find("\n" + line + "\n") != std::string::npos;
  }

  int pipe_[2];
  std::unique_ptr<AccessLog> log_;
};

class RpcCallWithTokensTest : public RpcCallTest {
 protected:
  ServerOptions Options() const override {
    return WithTokens({absl::StrCat(kAdmin, " admin"), absl::StrCat(kReader, " generate,adapters.read")});
  }
};

TEST_F(RpcCallTest, ARequestIdIsOneFieldOfTheLogLine) {
  const struct {
    const char* sent;
    const char* logged;
  } cases[] = {
      {"caller-7", "request_id=caller-7 seconds="},
      {"x reason=forged request_id=other", "request_id=x%20reason=forged%20request_id=other seconds="},
      {"50%20", "request_id=50%2520 seconds="},
  };
  for (const auto& [sent, logged] : cases) {
    auto context = Context();
    context->AddMetadata("x-request-id", sent);
    v1::ServerInfo answer;
    testing::internal::CaptureStderr();
    info_->GetServerInfo(context.get(), {}, &answer);
    FlushLog();
    EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr(logged)) << sent;
  }
}

TEST_F(RpcCallTest, IdsOfAnAdmittedCallComeFirstAndLast) {
  auto context = Context();
  context->AddMetadata("x-request-id", "caller-7");
  context->AddMetadata("traceparent", kTrace);
  auto reader = images_->StreamGenerateImages(context.get(), Request());
  const auto submission = engine_.AwaitSubmission();
  reader->WaitForInitialMetadata();
  EXPECT_EQ(Initial(*context, "x-request-id"), submission.admission.request_id);
  EXPECT_EQ(Initial(*context, "traceparent"), kTrace);
  ImageSummary summary;
  summary.adapters = {{"neon", std::string(64, 'a'), 0.7, AdapterTier::kHost, 3, {}}};
  submission.listener->OnImage(ImageOf(0, 100));
  submission.listener->OnEnd(absl::OkStatus(), summary);
  v1::GenerateImagesEvent event;
  while (reader->Read(&event)) {
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_EQ(Trailer(*context, "traceparent"), kTrace);
  EXPECT_TRUE(Shows("hotlora_adapter_requests_total{adapter=\"neon\"} 1"));
  EXPECT_TRUE(Shows("hotlora_image_bytes_total{format=\"png\"} 100"));
  EXPECT_TRUE(Shows("hotlora_time_to_first_event_seconds_count 1"));
  EXPECT_TRUE(Shows("hotlora_requests_in_flight{method=\"StreamGenerateImages\"} 0"));
  const auto lines = Lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["request_id"], submission.admission.request_id);
  EXPECT_EQ(lines[0]["traceparent"], kTrace);
  EXPECT_EQ(lines[0]["adapters"][0]["tier"], "host");
  EXPECT_EQ(lines[0]["image_bytes"], 100);
}

TEST_F(RpcCallTest, ARefusalHasTrailersAlone) {
  engine_.RefuseNext(MakeError(absl::StatusCode::kResourceExhausted, "QUEUE_FULL", "the queue is full"));
  auto context = Context();
  context->AddMetadata("x-request-id", "caller-8");
  context->AddMetadata("traceparent", kTrace);
  v1::GenerateImagesResponse response;
  EXPECT_FALSE(images_->GenerateImages(context.get(), Request(), &response).ok());
  EXPECT_EQ(Initial(*context, "x-request-id"), "absent");
  EXPECT_EQ(Initial(*context, "traceparent"), "absent");
  EXPECT_EQ(Trailer(*context, "x-request-id"), "caller-8");
  EXPECT_EQ(Trailer(*context, "traceparent"), kTrace);
  EXPECT_TRUE(Shows("hotlora_requests_rejected_total{reason=\"queue_full\"} 1"));
  const auto lines = Lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["outcome"], "error");
  EXPECT_EQ(lines[0]["reason"], "QUEUE_FULL");
}

TEST_F(RpcCallTest, ATraceParentThatIsNoneGoesNowhere) {
  for (const char* trace : {"nonsense", "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}) {
    auto context = Context();
    context->AddMetadata("traceparent", trace);
    v1::ServerInfo info;
    EXPECT_TRUE(info_->GetServerInfo(context.get(), {}, &info).ok());
    EXPECT_EQ(Trailer(*context, "traceparent"), "absent") << trace;
  }
  EXPECT_FALSE(Lines().front().contains("traceparent"));
}

TEST_F(RpcCallTest, NoLineHasThePrompt) {
  engine_.SetScript([](const auto& submission) { submission.listener->OnEnd(absl::OkStatus(), {}); });
  v1::GenerateImagesResponse response;
  auto request = Request();
  request.set_prompt("a secret lighthouse");
  EXPECT_TRUE(images_->GenerateImages(Context().get(), request, &response).ok());
  request.set_steps(0);
  EXPECT_FALSE(images_->GenerateImages(Context().get(), request, &response).ok());
  for (const auto& line : Lines()) {
    EXPECT_EQ(line.dump().find("secret"), std::string::npos);
  }
}

TEST_F(RpcCallTest, CallersWhoLeaveAreCountedByHowFarTheyCame) {
  auto context = Context();
  auto reader = images_->StreamGenerateImages(context.get(), Request());
  const auto submission = engine_.AwaitSubmission();
  submission.listener->OnProgress({0, 1, 2});
  context->TryCancel();
  const auto [id, why] = engine_.AwaitCancel();
  submission.listener->OnEnd(why, {});
  EXPECT_TRUE(Shows("hotlora_requests_cancelled_total{cause=\"client\",stage=\"denoise\"} 1"));
  EXPECT_TRUE(Shows("hotlora_cancel_latency_seconds_count 1"));
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(RpcCallTest, CallsOfARetryPolicyAreCounted) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(
      R"({"methodConfig": [{"name": [{"service": "hotlora.v1.ImageService"}],
      "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1,
                      "retryableStatusCodes": ["UNAVAILABLE"]}}]})");
  const auto stub = v1::ImageService::NewStub(Connect(arguments));
  engine_.RefuseNext(MakeError(absl::StatusCode::kUnavailable, "DRAINING", "elsewhere"));
  engine_.SetScript([](const auto& submission) { submission.listener->OnEnd(absl::OkStatus(), {}); });
  v1::GenerateImagesResponse response;
  EXPECT_TRUE(stub->GenerateImages(Context().get(), Request(), &response).ok());
  EXPECT_TRUE(Shows("hotlora_client_retries_total 1"));
}

TEST_F(RpcCallTest, TheServersStateIsAFigure) {
  EXPECT_TRUE(Shows("hotlora_ready 1"));
  server_->StopServing();
  server_->StopServing();
  EXPECT_TRUE(Shows("hotlora_ready 0"));
  EXPECT_TRUE(Shows("hotlora_draining 1"));
  EXPECT_TRUE(Shows("hotlora_state_transitions_total{to=\"draining\"} 1"));
}

TEST_F(RpcCallTest, TheLogLevelIsSetAndAskedFor) {
  v1::SetLogLevelRequest request;
  v1::SetLogLevelResponse response;
  request.set_level(v1::LOG_LEVEL_DEBUG);
  ASSERT_TRUE(info_->SetLogLevel(Context().get(), request, &response).ok());
  EXPECT_EQ(response.previous(), v1::LOG_LEVEL_INFO);
  EXPECT_EQ(response.level(), v1::LOG_LEVEL_DEBUG);
  EXPECT_EQ(CurrentLogLevel(), LogLevel::kDebug);
  ASSERT_TRUE(info_->SetLogLevel(Context().get(), {}, &response).ok());
  EXPECT_EQ(response.level(), v1::LOG_LEVEL_DEBUG);
  request.set_level(static_cast<v1::LogLevel>(77));
  const grpc::Status status = info_->SetLogLevel(Context().get(), request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FindDetail<google::rpc::BadRequest>(status)->field_violations(0).field(), "level");
}

TEST_F(RpcCallWithTokensTest, OnlyAdminSetsTheLogLevel) {
  v1::SetLogLevelRequest request;
  request.set_level(v1::LOG_LEVEL_DEBUG);
  v1::SetLogLevelResponse response;
  EXPECT_EQ(info_->SetLogLevel(Context(kReader).get(), request, &response).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(info_->SetLogLevel(Context("0123456789abcdef-nobody").get(), request, &response).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(info_->SetLogLevel(Context().get(), request, &response).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(CurrentLogLevel(), LogLevel::kInfo);
  EXPECT_TRUE(info_->SetLogLevel(Context(kAdmin).get(), request, &response).ok());
  EXPECT_EQ(CurrentLogLevel(), LogLevel::kDebug);
  for (const char* reason : {"scope", "invalid", "missing"}) {
    EXPECT_TRUE(Shows(absl::StrCat("hotlora_auth_failures_total{reason=\"", reason, "\"} 1"))) << reason;
  }
  for (const auto& line : Lines()) {
    EXPECT_EQ(line.dump().find("0123456789abcdef"), std::string::npos);
  }
}

TEST_F(RpcCallWithTokensTest, GuessesDoNotFillTheLog) {
  constexpr int kGuesses = 200;
  testing::internal::CaptureStderr();
  const absl::Time start = absl::Now();
  for (int i = 0; i < kGuesses; ++i) {
    v1::ServerInfo answer;
    info_->GetServerInfo(Context("0123456789abcdef-nobody").get(), {}, &answer);
  }
  v1::ServerInfo answer;
  EXPECT_TRUE(info_->GetServerInfo(Context(kAdmin).get(), {}, &answer).ok());
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  FlushLog();
  const std::string log = testing::internal::GetCapturedStderr();
  int lines = 0;
  for (size_t at = 0; (at = log.find("GetServerInfo UNAUTHENTICATED", at)) != std::string::npos; ++at) {
    ++lines;
  }
  EXPECT_GT(lines, 0);
  EXPECT_LE(lines, LineSampler::kPerSecond * (1 + static_cast<int>(seconds)));
  EXPECT_NE(log.find("GetServerInfo OK"), std::string::npos);  // which guesses do not hide
  const auto access_lines = Lines();
  const auto refused = std::count_if(access_lines.begin(), access_lines.end(),
                                     [](const auto& line) { return line["code"] == "UNAUTHENTICATED"; });
  EXPECT_GT(refused, 0);
  EXPECT_LE(refused, GuessLimits{}.free_guesses + LineSampler::kPerSecond * (1 + static_cast<int>(seconds)));
  EXPECT_EQ(access_lines.back()["code"], "OK");
}

TEST_F(RpcCallTest, TheAccessLogNamesThePeer) {
  v1::ServerInfo answer;
  EXPECT_TRUE(info_->GetServerInfo(Context().get(), {}, &answer).ok());
  EXPECT_THAT(Lines().back()["peer"].get<std::string>(), testing::StartsWith("ipv4:127.0.0.1:"));
}

class RpcCallBehindAProxyTest : public RpcCallTest {
 protected:
  ServerOptions Options() const override { return WithProxies({"127.0.0.1"}); }
};

TEST_F(RpcCallBehindAProxyTest, TheAccessLogNamesThePeer) {
  auto context = Context();
  context->AddMetadata("x-forwarded-for", "6.6.6.6, 203.0.113.7:4711");
  v1::ServerInfo answer;
  EXPECT_TRUE(info_->GetServerInfo(context.get(), {}, &answer).ok());
  EXPECT_EQ(Lines().back()["peer"], "ipv4:203.0.113.7");
}

TEST_F(RpcCallWithTokensTest, SeveralTokensAreNone) {
  const std::string wrong = "0123456789abcdef-nobody";
  const std::pair<std::string, std::string> pairs[] = {{kAdmin, wrong}, {wrong, kAdmin}, {kAdmin, kAdmin}};
  for (const auto& [first, second] : pairs) {
    auto context = Context(first);
    context->AddMetadata("authorization", "Bearer " + second);
    v1::ServerInfo answer;
    EXPECT_EQ(info_->GetServerInfo(context.get(), {}, &answer).error_code(), grpc::StatusCode::UNAUTHENTICATED)
        << first << " " << second;
  }
}

}  // namespace
}  // namespace hotlora
