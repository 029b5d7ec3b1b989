#ifndef HOTLORA_SERVER_SDAPI_SERVICE_H_
#define HOTLORA_SERVER_SDAPI_SERVICE_H_

#include "google/api/httpbody.pb.h"

#include "hotlora/sdapi/v1/sdapi.grpc.pb.h"
#include "server/rpc_call.h"
#include "server/sdapi_mapping.h"
#include "server/sdapi_requests.h"
#include "server/unparsed_service.h"

namespace hotlora {

// hotlora.sdapi.v1.SdapiService: AUTOMATIC1111's API. Its requests for images take the way of ImageService's through
// the engine. Progress and Interrupt know the caller's requests of this service alone: by the token, or, if the server
// has no tokens, all of them. Needed scopes: generate for images, progress and interrupt; adapters.read for ListLoras
// and ListControlModels; any for the rest.
class SdapiService final : public UnparsedService {
 public:
  explicit SdapiService(ServiceContext* service);

  grpc::ServerUnaryReactor* Txt2Img(grpc::CallbackServerContext* context,
                                    const Unparsed<sdapi::v1::GenerateRequest>* request,
                                    sdapi::v1::GenerateResponse* response);
  grpc::ServerUnaryReactor* Img2Img(grpc::CallbackServerContext* context,
                                    const Unparsed<sdapi::v1::GenerateRequest>* request,
                                    sdapi::v1::GenerateResponse* response);
  grpc::ServerUnaryReactor* ListLoras(grpc::CallbackServerContext* context,
                                      const Unparsed<sdapi::v1::ListLorasRequest>* request,
                                      google::api::HttpBody* response);
  grpc::ServerUnaryReactor* ListSamplers(grpc::CallbackServerContext* context,
                                         const Unparsed<sdapi::v1::ListSamplersRequest>* request,
                                         google::api::HttpBody* response);
  grpc::ServerUnaryReactor* ListSchedulers(grpc::CallbackServerContext* context,
                                           const Unparsed<sdapi::v1::ListSchedulersRequest>* request,
                                           google::api::HttpBody* response);
  grpc::ServerUnaryReactor* ListSdModels(grpc::CallbackServerContext* context,
                                         const Unparsed<sdapi::v1::ListSdModelsRequest>* request,
                                         google::api::HttpBody* response);
  grpc::ServerUnaryReactor* ListControlModels(grpc::CallbackServerContext* context,
                                              const Unparsed<sdapi::v1::ListControlModelsRequest>* request,
                                              google::api::HttpBody* response);
  grpc::ServerUnaryReactor* ListControlModules(grpc::CallbackServerContext* context,
                                               const Unparsed<sdapi::v1::ListControlModulesRequest>* request,
                                               google::api::HttpBody* response);
  grpc::ServerUnaryReactor* GetOptions(grpc::CallbackServerContext* context,
                                       const Unparsed<sdapi::v1::GetOptionsRequest>* request,
                                       google::api::HttpBody* response);
  grpc::ServerUnaryReactor* SetOptions(grpc::CallbackServerContext* context,
                                       const Unparsed<sdapi::v1::SetOptionsRequest>* request,
                                       sdapi::v1::SetOptionsResponse* response);
  grpc::ServerUnaryReactor* GetProgress(grpc::CallbackServerContext* context,
                                        const Unparsed<sdapi::v1::GetProgressRequest>* request,
                                        google::api::HttpBody* response);
  grpc::ServerUnaryReactor* Interrupt(grpc::CallbackServerContext* context,
                                      const Unparsed<sdapi::v1::InterruptRequest>* request,
                                      sdapi::v1::InterruptResponse* response);

 private:
  ServiceContext* const service_;
  SdapiRequests requests_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SDAPI_SERVICE_H_
