#ifndef HOTLORA_SERVER_SERVER_INFO_SERVICE_H_
#define HOTLORA_SERVER_SERVER_INFO_SERVICE_H_

#include "hotlora/v1/server.grpc.pb.h"
#include "server/rpc_call.h"
#include "server/unparsed_service.h"

namespace hotlora {

// hotlora.v1.ServerService: what runs here and what it allows, for any known token; figures for who may read adapters;
// VerifyBase, which takes time between steps, and how much is logged, for admins.
class ServerInfoService final : public UnparsedService {
 public:
  explicit ServerInfoService(ServiceContext* service);

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const Unparsed<v1::GetServerInfoRequest>* request, v1::ServerInfo* response);
  grpc::ServerUnaryReactor* SetLogLevel(grpc::CallbackServerContext* context,
                                        const Unparsed<v1::SetLogLevelRequest>* request,
                                        v1::SetLogLevelResponse* response);
  grpc::ServerUnaryReactor* GetStatistics(grpc::CallbackServerContext* context,
                                          const Unparsed<v1::GetStatisticsRequest>* request, v1::Statistics* response);
  grpc::ServerUnaryReactor* VerifyBase(grpc::CallbackServerContext* context,
                                       const Unparsed<v1::VerifyBaseRequest>* request, v1::BaseIntegrity* response);

 private:
  ServiceContext* const service_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SERVER_INFO_SERVICE_H_
