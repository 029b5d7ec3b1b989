// Who calls, and what a peer that guesses tokens gets: seen from outside.

#include <chrono>
#include <future>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "tests/server/serving.h"

namespace hotlora {
namespace {

constexpr char kGood[] = "0123456789abcdef-good";
constexpr char kOther[] = "0123456789abcdef-other";
constexpr char kWrong[] = "0123456789abcdef-wrong";

class CallersTest : public ServingTest {
 protected:
  static ServerOptions WithBothTokens() {
    return WithTokens({absl::StrCat(kGood, " admin"), absl::StrCat(kOther, " admin")});
  }

  // The caller's name for limits, of a request with these values of x-forwarded-for.
  std::string CallerOf(const std::vector<std::string>& forwarded, const std::string& token = "") {
    auto context = Context(token);
    for (const std::string& value : forwarded) {
      context->AddMetadata("x-forwarded-for", value);
    }
    std::string caller;
    engine_.SetScript([&](const FakeEngine::Submission& submission) {
      caller = submission.request.caller;
      submission.listener->OnEnd(absl::OkStatus(), {});
    });
    v1::GenerateImagesResponse response;
    EXPECT_TRUE(images_->GenerateImages(context.get(), Request(), &response).ok());
    return caller;
  }

  // Calls of each kind, each without a good token. Their codes.
  std::vector<grpc::StatusCode> GuessInEveryWay(std::chrono::milliseconds patience) {
    const auto context = [&] {
      auto guess = Context(kWrong);
      guess->set_deadline(std::chrono::system_clock::now() + patience);
      return guess;
    };
    v1::GenerateImagesResponse whole;
    v1::Adapter adapter;
    v1::ServerInfo server;
    v1::SetLogLevelResponse level;
    const auto stream_context = context(), upload_context = context();
    const auto stream = images_->StreamGenerateImages(stream_context.get(), Request());
    v1::GenerateImagesEvent event;
    EXPECT_FALSE(stream->Read(&event));
    const auto upload = adapters_->UploadAdapter(upload_context.get(), &adapter);
    upload->WritesDone();
    return {stream->Finish().error_code(),
            upload->Finish().error_code(),
            images_->GenerateImages(context().get(), Request(), &whole).error_code(),
            adapters_->LoadAdapter(context().get(), {}, &adapter).error_code(),
            info_->GetServerInfo(context().get(), {}, &server).error_code(),
            info_->SetLogLevel(context().get(), {}, &level).error_code()};
  }
};

TEST_F(CallersTest, WithoutATrustedProxyThePeerIsTheConnections) {
  Start();
  EXPECT_EQ(CallerOf({}), "ipv4:127.0.0.1");
  EXPECT_EQ(CallerOf({"203.0.113.7"}), "ipv4:127.0.0.1");
}

TEST_F(CallersTest, ATrustedProxyNamesThePeer) {
  Start(WithProxies({"127.0.0.0/8"}));
  EXPECT_EQ(CallerOf({}), "ipv4:127.0.0.1");
  EXPECT_EQ(CallerOf({"203.0.113.7"}), "ipv4:203.0.113.7");
  EXPECT_EQ(CallerOf({"6.6.6.6", "203.0.113.7, 127.0.0.9"}), "ipv4:203.0.113.7");
  EXPECT_EQ(CallerOf({"2001:db8:1:2:3::"}), "ipv6:[2001:db8:1:2::]/64");
}

TEST_F(CallersTest, ATokenIsTheSameCallerFromEveryPeer) {
  Start(WithProxies({"127.0.0.1"}, WithBothTokens()));
  EXPECT_EQ(CallerOf({"203.0.113.7"}, kGood), CallerOf({"203.0.113.8"}, kGood));
  EXPECT_NE(CallerOf({"203.0.113.7"}, kGood), CallerOf({"203.0.113.7"}, kOther));
}

// A late answer would come after 5 s; what waits less long for it hears its own deadline.
TEST_F(CallersTest, GuessesAreAnsweredLateAndGoodTokensAtOnce) {
  using ::testing::Each;
  ServerOptions options = WithBothTokens();
  options.guesses.free_guesses = 6;
  options.guesses.delay = absl::Seconds(5);
  Start(std::move(options));
  EXPECT_THAT(GuessInEveryWay(kPatience), Each(grpc::StatusCode::UNAUTHENTICATED)) << "the first ones are free";
  EXPECT_THAT(GuessInEveryWay(std::chrono::milliseconds(200)), Each(grpc::StatusCode::DEADLINE_EXCEEDED));
  for (int i = 0; i < 20; ++i) {
    EXPECT_NE(CallerOf({}, kGood), "");
  }
}

TEST_F(CallersTest, ALateAnswerIsTheSame) {
  ServerOptions options = WithBothTokens();
  options.guesses.free_guesses = 0;
  options.guesses.delay = absl::Milliseconds(20);
  Start(std::move(options));
  EXPECT_THAT(GuessInEveryWay(kPatience), ::testing::Each(grpc::StatusCode::UNAUTHENTICATED));
  EXPECT_EQ(Counted("GetServerInfo", "UNAUTHENTICATED"), 1);
}

TEST_F(CallersTest, GuessesOfOnePeerBehindAProxyAreNotAnothers) {
  ServerOptions options = WithProxies({"127.0.0.1"}, WithBothTokens());
  options.guesses.free_guesses = 3;
  options.guesses.delay = absl::Seconds(5);
  Start(std::move(options));
  const auto guess = [&](const std::string& peer) {
    auto context = Context(kWrong);
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
    context->AddMetadata("x-forwarded-for", peer);
    v1::ServerInfo info;
    return info_->GetServerInfo(context.get(), {}, &info).error_code();
  };
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(guess("203.0.113.7"), grpc::StatusCode::UNAUTHENTICATED);
  }
  EXPECT_EQ(guess("203.0.113.7"), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(guess("203.0.113.8"), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(CallersTest, OneCallersLoadsLeaveRoomForOthers) {
  Start(WithBothTokens());
  engine_.HoldLoads();
  const auto load = [&](const std::string& token) {
    return std::async(std::launch::async, [&, context = Context(token)] {
      v1::Adapter adapter;
      return adapters_->LoadAdapter(context.get(), {}, &adapter);
    });
  };
  std::vector<std::future<grpc::Status>> waiting;
  for (int i = 0; i < ServiceContext::kMostLoadsOfOne; ++i) {
    waiting.push_back(load(kGood));
  }
  engine_.AwaitHeldLoads(ServiceContext::kMostLoadsOfOne);
  const grpc::Status refused = load(kGood).get();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Reason(refused), "LOADS_BUSY");
  EXPECT_TRUE(FindDetail<google::rpc::RetryInfo>(refused).has_value());
  waiting.push_back(load(kOther));
  engine_.AwaitHeldLoads(ServiceContext::kMostLoadsOfOne + 1);
  engine_.ReleaseLoads();
  for (auto& call : waiting) {
    EXPECT_EQ(call.get().error_code(), grpc::StatusCode::NOT_FOUND) << "there is no such adapter";
  }
  EXPECT_EQ(load(kGood).get().error_code(), grpc::StatusCode::NOT_FOUND) << "nothing is under way any more";
}

TEST(LongestCallTest, IsThatOfARequestOrOfAnUpload) {
  ServerOptions options;
  EXPECT_EQ(LongestCall(options), absl::InfiniteDuration());
  options.longest_request = absl::Minutes(5);
  EXPECT_EQ(LongestCall(options), options.uploads.longest);
  options.longest_request = absl::Hours(2);
  EXPECT_EQ(LongestCall(options), absl::Hours(2));
  options.longest_request = absl::Minutes(5);
  options.uploads.served = false;
  EXPECT_EQ(LongestCall(options), absl::Minutes(5));
}

}  // namespace
}  // namespace hotlora
