#ifndef HOTLORA_CLIENT_IMAGE_CLIENT_H_
#define HOTLORA_CLIENT_IMAGE_CLIENT_H_

// Calls to a hotlora-server. No call is retried: the caller sees each answer.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include "client/arguments.h"
#include "hotlora/v1/adapters.grpc.pb.h"
#include "hotlora/v1/images.grpc.pb.h"
#include "hotlora/v1/server.grpc.pb.h"

namespace hotlora {

// How a call ended.
struct CallResult {
  grpc::Status status;
  std::string request_id;  // the server's x-request-id; empty if it never answered
};

// A finished generation.
struct GeneratedImages {
  v1::Accepted accepted;
  std::vector<v1::Image> images;  // whole, by index
  v1::Summary summary;
};

// The metadata x-adapter-key, by which load balancers send a request to the replica that already has its adapters: the
// adapters' names in normal form C, in the request's order, each percent-encoded (EncodeName), joined by commas. "base"
// if there are none.
std::string AdapterKey(const v1::GenerateImagesRequest& request);

// Size and checksum of a file that is to be uploaded as `name`. InvalidArgument if it cannot be read.
absl::StatusOr<v1::UploadHeader> MakeUploadHeader(const std::string& file, const std::string& name, bool replace);

// Not thread-safe. Every call blocks.
class ImageClient {
 public:
  // InvalidArgument if a TLS file cannot be read. Does not connect yet.
  static absl::StatusOr<std::unique_ptr<ImageClient>> Create(const ConnectionOptions& options);

  // `on_event`, unless it is null, is called with each event except images. An answer that ends with OK but lacks a
  // part is DATA_LOSS.
  CallResult Generate(const v1::GenerateImagesRequest& request,
                      const std::function<void(const v1::GenerateImagesEvent&)>& on_event, GeneratedImages& images);
  // Cancels the call at the first event for which `stop` returns true; the result is then CANCELLED.
  CallResult GenerateUntil(const v1::GenerateImagesRequest& request,
                           const std::function<bool(const v1::GenerateImagesEvent&)>& stop);

  CallResult ListAdapters(std::vector<v1::Adapter>* adapters);  // all pages
  CallResult GetAdapter(const std::string& name, v1::Adapter* adapter);
  CallResult LoadAdapter(const std::string& name, bool pin, v1::Adapter* adapter,
                         v1::AdapterTier tier = v1::ADAPTER_TIER_UNSPECIFIED);
  CallResult UnloadAdapter(const std::string& name, v1::Adapter* adapter);
  // Sends the file of that header in chunks.
  CallResult UploadAdapter(const v1::UploadHeader& header, const std::string& file, v1::Adapter* adapter);
  CallResult DeleteAdapter(const std::string& name);
  CallResult GetServerInfo(v1::ServerInfo* info);
  CallResult SetLogLevel(v1::LogLevel level, v1::SetLogLevelResponse* response);
  CallResult GetStatistics(v1::Statistics* statistics);
  CallResult VerifyBase(v1::BaseIntegrity* integrity);
  CallResult IsServing(bool* serving);

 private:
  ImageClient(ConnectionOptions options, std::shared_ptr<grpc::Channel> channel);

  // Deadline and token of a call.
  void Prepare(grpc::ClientContext* context) const;

  // One unary call by a method of a service's stub.
  template <typename Stub, typename Request, typename Response>
  CallResult Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request,
                  Response* response);

  const ConnectionOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_IMAGE_CLIENT_H_
