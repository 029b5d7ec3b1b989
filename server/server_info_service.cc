#include "server/server_info_service.h"

#include "server/proto_mapping.h"
#include "src/base/status_macros.h"

namespace hotlora {

grpc::ServerUnaryReactor* ServerInfoService::GetServerInfo(grpc::CallbackServerContext* context,
                                                           const v1::GetServerInfoRequest* request,
                                                           v1::ServerInfo* response) {
  RpcCall call(service_, "GetServerInfo", context);
  const absl::Status status = CatchExceptions([&]() -> absl::Status {
    ABSL_ASSIGN_OR_RETURN(Engine* const engine, call.Open(Scope::kAny));
    *response = ToProto(engine->model(), engine->options(), service_->max_message_bytes);
    return absl::OkStatus();
  });
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(call.Close(status));
  return reactor;
}

}  // namespace hotlora
