#ifndef HOTLORA_SERVER_IMAGE_SERVICE_H_
#define HOTLORA_SERVER_IMAGE_SERVICE_H_

#include "hotlora/v1/images.grpc.pb.h"
#include "server/rpc_call.h"
#include "server/unparsed_service.h"

namespace hotlora {

// hotlora.v1.ImageService: maps the request, hands it to Engine::Submit and sends what the engine
// tells. Handlers never block; each call is one object that gRPC and the engine hold together, and
// that is gone once both have let go.
class ImageService final : public UnparsedService {
 public:
  explicit ImageService(ServiceContext* service);

  grpc::ServerUnaryReactor* GenerateImages(grpc::CallbackServerContext* context,
                                           const Unparsed<v1::GenerateImagesRequest>* request,
                                           v1::GenerateImagesResponse* response);

  grpc::ServerUnaryReactor* RenderImage(grpc::CallbackServerContext* context,
                                        const Unparsed<v1::GenerateImagesRequest>* request,
                                        google::api::HttpBody* response);

  grpc::ServerWriteReactor<v1::GenerateImagesEvent>* StreamGenerateImages(
      grpc::CallbackServerContext* context, const Unparsed<v1::GenerateImagesRequest>* request);

 private:
  ServiceContext* const service_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_IMAGE_SERVICE_H_
