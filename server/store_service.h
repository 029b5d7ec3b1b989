#ifndef HOTLORA_SERVER_STORE_SERVICE_H_
#define HOTLORA_SERVER_STORE_SERVICE_H_

#include <google/protobuf/empty.pb.h>

#include "server/rpc_call.h"
#include "server/store_calls.h"
#include "server/unparsed_service.h"
#include "src/base/serial_executor.h"

namespace hotlora {

// hotlora.v1.AdapterService, ControlService and ImagePromptService over the engine's stores. Load answers when the
// engine's adapter thread has the file, Upload when this class's upload thread has written it; the others at once.
// `Calls` is one of store_calls.h.
template <typename Calls>
class StoreService final : public UnparsedService {
 public:
  explicit StoreService(ServiceContext* service);

 private:
  using Item = typename Calls::Item;

  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const Unparsed<typename Calls::ListRequest>* request,
                                 typename Calls::ListResponse* response);
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context,
                                const Unparsed<typename Calls::GetRequest>* request, Item* response);
  grpc::ServerUnaryReactor* Load(grpc::CallbackServerContext* context,
                                 const Unparsed<typename Calls::LoadRequest>* request, Item* response);
  grpc::ServerUnaryReactor* Unload(grpc::CallbackServerContext* context,
                                   const Unparsed<typename Calls::UnloadRequest>* request, Item* response);
  grpc::ServerReadReactor<Unparsed<typename Calls::UploadRequest>>* Upload(grpc::CallbackServerContext* context,
                                                                           Item* response);
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context,
                                   const Unparsed<typename Calls::DeleteRequest>* request,
                                   google::protobuf::Empty* response);

  ServiceContext* const service_;
  SerialExecutor upload_thread_{"upload"};
};

using AdapterService = StoreService<AdapterCalls>;
using ControlService = StoreService<ControlCalls>;
using ImagePromptService = StoreService<ImagePromptCalls>;

}  // namespace hotlora

#endif  // HOTLORA_SERVER_STORE_SERVICE_H_
