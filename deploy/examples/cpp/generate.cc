// Paints a picture and shows how far it is:  hotlora-example PROMPT [ADAPTER...]

#include <cctype>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include <grpcpp/grpcpp.h>

#include "hotlora/v1/images.grpc.pb.h"

namespace {

// deploy/service_config.json, shortened: what did not start is tried again.
constexpr char kServiceConfig[] = R"({
  "methodConfig": [{
    "name": [{"service": "hotlora.v1.ImageService"}],
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.5s", "maxBackoff": "10s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
    }
  }],
  "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1}
})";

std::shared_ptr<grpc::Channel> Connect() {
  const char* const server = std::getenv("HOTLORA_SERVER");
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(server != nullptr ? server : "127.0.0.1:50051", grpc::InsecureChannelCredentials(),
                                   arguments);
}

// Load balancers route by it: the adapters' names in the request's order, percent-encoded, or "base".
std::string RoutingKey(const hotlora::v1::GenerateImagesRequest& request) {
  std::string key;
  for (const auto& adapter : request.adapters()) {
    key += key.empty() ? "" : ",";
    for (const unsigned char c : adapter.name()) {  // percent-encoded: a header is ASCII, and a name may have a comma
      char encoded[4];
      const bool plain = c != 0 && c < 0x80 && (std::isalnum(c) != 0 || std::strchr("-._~/", c) != nullptr);
      std::snprintf(encoded, sizeof(encoded), plain ? "%c" : "%%%02X", c);
      key += encoded;
    }
  }
  return key.empty() ? "base" : key;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: hotlora-example PROMPT [ADAPTER...]\n");
    return 2;
  }
  hotlora::v1::GenerateImagesRequest request;
  request.set_prompt(argv[1]);
  for (int i = 2; i < argc; ++i) {
    request.add_adapters()->set_name(argv[i]);
  }

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(10));
  context.AddMetadata("x-adapter-key", RoutingKey(request));
  const auto stub = hotlora::v1::ImageService::NewStub(Connect());
  const auto reader = stub->StreamGenerateImages(&context, request);

  std::string picture;
  hotlora::v1::GenerateImagesEvent event;
  while (reader->Read(&event)) {
    if (event.has_progress()) {
      std::fprintf(stderr, "step %u of %u\n", event.progress().step(), event.progress().total_steps());
    } else if (event.has_image()) {
      picture += event.image().data();  // over 2 MiB it comes in parts
    }
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) {
    std::fprintf(stderr, "error %d: %s\n", status.error_code(), status.error_message().c_str());
    return 1;
  }
  std::ofstream("picture.png", std::ios::binary) << picture;
  std::printf("picture.png: %zu bytes\n", picture.size());
}
