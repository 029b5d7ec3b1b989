#include "server/server_info_service.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

#include "server/proto_mapping.h"
#include "server/unary_call.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"

namespace hotlora {

ServerInfoService::ServerInfoService(ServiceContext* service)
    : UnparsedService(v1::ServerService::service_full_name()), service_(service) {
  AddUnary("GetServerInfo", &ServerInfoService::GetServerInfo);
  AddUnary("SetLogLevel", &ServerInfoService::SetLogLevel);
  AddUnary("GetStatistics", &ServerInfoService::GetStatistics);
  AddUnary("VerifyBase", &ServerInfoService::VerifyBase);
}

grpc::ServerUnaryReactor* ServerInfoService::GetServerInfo(grpc::CallbackServerContext* context,
                                                           const Unparsed<v1::GetServerInfoRequest>* request,
                                                           v1::ServerInfo* response) {
  return AnswerNow(service_, "GetServerInfo", Scope::kAny, context, request, [&](Engine& engine, const auto&) {
    *response = ToProto(engine.model(), engine.options(), service_->max_message_bytes);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ServerInfoService::GetStatistics(grpc::CallbackServerContext* context,
                                                           const Unparsed<v1::GetStatisticsRequest>* request,
                                                           v1::Statistics* response) {
  return AnswerFromDisk(service_, "GetStatistics", Scope::kAdaptersRead, context, request, response,
                        [](Engine& engine, const auto&, v1::Statistics& statistics) {
                          statistics = ToProto(engine.Statistics(), engine.model().device);
                          return absl::OkStatus();
                        });
}

grpc::ServerUnaryReactor* ServerInfoService::VerifyBase(grpc::CallbackServerContext* context,
                                                        const Unparsed<v1::VerifyBaseRequest>* request,
                                                        v1::BaseIntegrity* response) {
  using Answer = LaterAnswer<v1::BaseIntegrity>;
  const auto call = std::make_shared<Answer>(service_, "VerifyBase", context, response);
  call->Start(Scope::kAdmin, request, [](Engine& engine, const auto&, Answer::Done done) {
    engine.VerifyBase([done = std::move(done)](absl::StatusOr<BaseReport> report) {
      if (!report.ok()) {
        done(report.status());
      } else {
        done([&report](v1::BaseIntegrity& message) { message = ToProto(*report); });
      }
    });
    return absl::OkStatus();
  });
  return call.get();
}

grpc::ServerUnaryReactor* ServerInfoService::SetLogLevel(grpc::CallbackServerContext* context,
                                                         const Unparsed<v1::SetLogLevelRequest>* request,
                                                         v1::SetLogLevelResponse* response) {
  RpcCall call(service_, "SetLogLevel", context);
  const absl::Status status = CatchExceptions([&]() -> absl::Status {
    ABSL_RETURN_IF_ERROR(call.Authorize(Scope::kAdmin));
    ABSL_ASSIGN_OR_RETURN(const v1::SetLogLevelRequest asked, request->Parse());
    const v1::LogLevel level = asked.level();
    if (!v1::LogLevel_IsValid(level)) {
      return InvalidRequest(
          {{"level", absl::StrCat("is ", static_cast<int>(level), "; allowed are the values of LogLevel")}});
    }
    const bool change = level != v1::LOG_LEVEL_UNSPECIFIED;
    const LogLevel previous = change ? ExchangeLogLevel(static_cast<LogLevel>(level - 1)) : CurrentLogLevel();
    response->set_previous(static_cast<v1::LogLevel>(static_cast<int>(previous) + 1));
    response->set_level(change ? level : response->previous());
    return absl::OkStatus();
  });
  request->Drop();
  return new Answered(context, call, status);
}

}  // namespace hotlora
