#ifndef HOTLORA_SERVER_ADAPTER_SERVICE_H_
#define HOTLORA_SERVER_ADAPTER_SERVICE_H_

#include "hotlora/v1/adapters.grpc.pb.h"
#include "server/rpc_call.h"
#include "server/unparsed_service.h"
#include "src/base/serial_executor.h"

namespace hotlora {

// hotlora.v1.AdapterService over the engine's adapter calls. LoadAdapter answers when the engine's
// adapter thread has the file, UploadAdapter when this class's upload thread has written it; the others at once.
class AdapterService final : public UnparsedService {
 public:
  static constexpr uint32_t kDefaultPageSize = 50;
  static constexpr uint32_t kMaxPageSize = 1000;

  explicit AdapterService(ServiceContext* service);

  grpc::ServerUnaryReactor* ListAdapters(grpc::CallbackServerContext* context,
                                         const Unparsed<v1::ListAdaptersRequest>* request,
                                         v1::ListAdaptersResponse* response);
  grpc::ServerUnaryReactor* GetAdapter(grpc::CallbackServerContext* context,
                                       const Unparsed<v1::GetAdapterRequest>* request, v1::Adapter* response);
  grpc::ServerUnaryReactor* LoadAdapter(grpc::CallbackServerContext* context,
                                        const Unparsed<v1::LoadAdapterRequest>* request, v1::Adapter* response);
  grpc::ServerUnaryReactor* UnloadAdapter(grpc::CallbackServerContext* context,
                                          const Unparsed<v1::UnloadAdapterRequest>* request, v1::Adapter* response);
  grpc::ServerReadReactor<Unparsed<v1::UploadAdapterRequest>>* UploadAdapter(grpc::CallbackServerContext* context,
                                                                             v1::Adapter* response);
  grpc::ServerUnaryReactor* DeleteAdapter(grpc::CallbackServerContext* context,
                                          const Unparsed<v1::DeleteAdapterRequest>* request,
                                          google::protobuf::Empty* response);

 private:
  ServiceContext* const service_;
  SerialExecutor upload_thread_{"upload"};
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_ADAPTER_SERVICE_H_
