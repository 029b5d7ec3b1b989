#ifndef HOTLORA_SERVER_SERVER_INFO_SERVICE_H_
#define HOTLORA_SERVER_SERVER_INFO_SERVICE_H_

#include "hotlora/v1/server.grpc.pb.h"
#include "server/rpc_call.h"

namespace hotlora {

// hotlora.v1.ServerService: what runs here and what it allows, for any known token; figures for who may read adapters;
// VerifyBase, which takes time between steps, and how much is logged, for admins.
class ServerInfoService final : public v1::ServerService::CallbackService {
 public:
  explicit ServerInfoService(ServiceContext* service) : service_(service) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;
  grpc::ServerUnaryReactor* SetLogLevel(grpc::CallbackServerContext* context, const v1::SetLogLevelRequest* request,
                                        v1::SetLogLevelResponse* response) override;
  grpc::ServerUnaryReactor* GetStatistics(grpc::CallbackServerContext* context, const v1::GetStatisticsRequest* request,
                                          v1::Statistics* response) override;
  grpc::ServerUnaryReactor* VerifyBase(grpc::CallbackServerContext* context, const v1::VerifyBaseRequest* request,
                                       v1::BaseIntegrity* response) override;

 private:
  ServiceContext* const service_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SERVER_INFO_SERVICE_H_
