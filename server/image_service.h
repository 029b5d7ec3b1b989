#ifndef HOTLORA_SERVER_IMAGE_SERVICE_H_
#define HOTLORA_SERVER_IMAGE_SERVICE_H_

#include "hotlora/v1/images.grpc.pb.h"
#include "server/rpc_call.h"

namespace hotlora {

// hotlora.v1.ImageService: maps the request, hands it to Engine::Submit and sends what the engine
// tells. Handlers never block; each call is one object that gRPC and the engine hold together, and
// that is gone once both have let go.
class ImageService final : public v1::ImageService::CallbackService {
 public:
  explicit ImageService(ServiceContext* service) : service_(service) {}

  grpc::ServerUnaryReactor* GenerateImages(grpc::CallbackServerContext* context,
                                           const v1::GenerateImagesRequest* request,
                                           v1::GenerateImagesResponse* response) override;

  grpc::ServerUnaryReactor* RenderImage(grpc::CallbackServerContext* context, const v1::GenerateImagesRequest* request,
                                        google::api::HttpBody* response) override;

  grpc::ServerWriteReactor<v1::GenerateImagesEvent>* StreamGenerateImages(
      grpc::CallbackServerContext* context, const v1::GenerateImagesRequest* request) override;

 private:
  ServiceContext* const service_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_IMAGE_SERVICE_H_
