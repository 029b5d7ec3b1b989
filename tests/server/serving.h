#ifndef HOTLORA_TESTS_SERVER_SERVING_H_
#define HOTLORA_TESTS_SERVER_SERVING_H_

// A real server on a free port with a fake engine behind it, and a channel to it.

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include <google/protobuf/any.pb.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "hotlora/v1/adapters.grpc.pb.h"
#include "hotlora/v1/images.grpc.pb.h"
#include "hotlora/v1/server.grpc.pb.h"
#include "server/server.h"
#include "src/metrics/metrics.h"
#include "tests/fakes/fake_engine.h"

namespace hotlora {

class ServingTest : public ::testing::Test {
 protected:
  // A test that hangs ends here instead, with DEADLINE_EXCEEDED.
  static constexpr std::chrono::seconds kPatience{60};

  void Start(ServerOptions options = {}, bool serve = true) {
    auto started = Server::Start(std::move(options), &metrics_);
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    if (serve) {
      server_->Serve(&engine_);
    }
    channel_ = Connect();
    images_ = v1::ImageService::NewStub(channel_);
    adapters_ = v1::AdapterService::NewStub(channel_);
    info_ = v1::ServerService::NewStub(channel_);
  }

  // `lines` as in the file of tokens.
  static ServerOptions WithTokens(const std::vector<std::string>& lines) {
    ServerOptions options;
    options.tokens = *Tokens::Parse(absl::StrJoin(lines, "\n"));
    return options;
  }

  static ServerOptions WithProxies(const std::vector<std::string>& proxies, ServerOptions options = {}) {
    options.trusted_proxies = *TrustedProxies::Parse(proxies);
    return options;
  }

  std::shared_ptr<grpc::Channel> Connect(
      grpc::ChannelArguments arguments = {},
      std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials()) {
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()), credentials, arguments);
  }

  static std::unique_ptr<grpc::ClientContext> Context(const std::string& token = "") {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + kPatience);
    if (!token.empty()) {
      context->AddMetadata("authorization", "Bearer " + token);
    }
    return context;
  }

  static std::string Trailer(const grpc::ClientContext& context, const std::string& key) {
    const auto found = context.GetServerTrailingMetadata().find(key);
    return found == context.GetServerTrailingMetadata().end() ? "absent"
                                                              : std::string(found->second.data(), found->second.size());
  }

  // The detail of type Detail in `status`; nullopt where it has none.
  template <typename Detail>
  static std::optional<Detail> FindDetail(const grpc::Status& status) {
    google::rpc::Status rich;
    EXPECT_TRUE(rich.ParseFromString(status.error_details()));
    Detail detail;
    for (const google::protobuf::Any& any : rich.details()) {
      if (any.UnpackTo(&detail)) {
        return detail;
      }
    }
    return std::nullopt;
  }
  static std::string Reason(const grpc::Status& status) {
    const auto info = FindDetail<google::rpc::ErrorInfo>(status);
    return info.has_value() && info->domain() == "hotlora" ? info->reason() : "absent";
  }

  // What hotlora_requests_total says.
  int Counted(const std::string& method, const std::string& code) {
    const std::string text = metrics_.Render();
    for (const std::string& labels : {absl::StrCat("{method=\"", method, "\",code=\"", code, "\"} "),
                                      absl::StrCat("{code=\"", code, "\",method=\"", method, "\"} ")}) {
      const std::string start = "hotlora_requests_total" + labels;
      if (const size_t at = text.find(start); at != std::string::npos) {
        return std::stoi(text.substr(at + start.size()));
      }
    }
    return 0;
  }

  static v1::GenerateImagesRequest Request() {
    v1::GenerateImagesRequest request;
    request.set_prompt("a lighthouse");
    request.set_seed(7);
    return request;
  }

  static FinishedImage ImageOf(uint32_t index, size_t bytes) {
    FinishedImage image;
    image.index = index;
    image.seed = 7 + index;
    image.width = image.height = 512;
    image.data.resize(bytes);
    for (size_t i = 0; i < bytes; ++i) {
      image.data[i] = static_cast<char>(i * 31 + index);
    }
    return image;
  }

  Metrics metrics_;
  FakeEngine engine_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ImageService::Stub> images_;
  std::unique_ptr<v1::AdapterService::Stub> adapters_;
  std::unique_ptr<v1::ServerService::Stub> info_;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_SERVER_SERVING_H_
