#ifndef HOTLORA_SERVER_OPENAI_SERVICE_H_
#define HOTLORA_SERVER_OPENAI_SERVICE_H_

#include "hotlora/openai/v1/openai.grpc.pb.h"
#include "server/rpc_call.h"
#include "server/unparsed_service.h"

namespace hotlora {

// hotlora.openai.v1.ImagesService: OpenAI's Images API. Requests become those of ImageService (openai_mapping.h).
class OpenAiService final : public UnparsedService {
 public:
  explicit OpenAiService(ServiceContext* service);

  grpc::ServerUnaryReactor* CreateImage(grpc::CallbackServerContext* context,
                                        const Unparsed<openai::v1::CreateImageRequest>* request,
                                        openai::v1::CreateImageResponse* response);
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const Unparsed<openai::v1::ListModelsRequest>* request,
                                       openai::v1::ListModelsResponse* response);
  grpc::ServerUnaryReactor* RetrieveModel(grpc::CallbackServerContext* context,
                                          const Unparsed<openai::v1::RetrieveModelRequest>* request,
                                          openai::v1::Model* response);

 private:
  ServiceContext* const service_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_OPENAI_SERVICE_H_
