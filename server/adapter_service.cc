#include "server/adapter_service.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "server/adapter_upload_call.h"
#include "server/proto_mapping.h"
#include "server/unary_call.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

// A page token is this and the last name of the page before. Its form is not part of the API.
constexpr absl::string_view kTokenPrefix = "after:";

std::string ToPageToken(absl::string_view last_name) {
  return absl::WebSafeBase64Escape(absl::StrCat(kTokenPrefix, last_name));
}

absl::Status BadField(std::string field, std::string description) {
  return InvalidRequest({{std::move(field), std::move(description)}});
}

absl::StatusOr<std::string> FromPageToken(const std::string& token) {
  if (token.empty()) {
    return std::string();
  }
  std::string plain;
  absl::string_view name;
  if (absl::WebSafeBase64Unescape(token, &plain)) {
    name = plain;
  }
  if (!absl::ConsumePrefix(&name, kTokenPrefix) || name.empty()) {
    return BadField("page_token", "was not issued by this server");
  }
  return std::string(name);
}

absl::Status List(Engine& engine, const v1::ListAdaptersRequest& request, v1::ListAdaptersResponse& response) {
  const uint32_t asked = request.page_size() == 0 ? AdapterService::kDefaultPageSize : request.page_size();
  const size_t page_size = std::min(asked, AdapterService::kMaxPageSize);
  ABSL_ASSIGN_OR_RETURN(const std::string after, FromPageToken(request.page_token()));
  ABSL_ASSIGN_OR_RETURN(const std::vector<AdapterInfo> found, engine.ListAdapters(after, page_size + 1));
  for (size_t i = 0; i < std::min(found.size(), page_size); ++i) {
    *response.add_adapters() = ToProto(found[i]);
  }
  if (found.size() > page_size) {
    response.set_next_page_token(ToPageToken(found[page_size - 1].name));
  }
  return absl::OkStatus();
}

// The body of a call that names an adapter and is answered with it; `ask` is the engine's function.
template <typename Request, typename Ask>
auto AnswerOf(Ask ask) {
  return [ask](Engine& engine, const Request& request, v1::Adapter& response) -> absl::Status {
    ABSL_ASSIGN_OR_RETURN(const AdapterInfo info, (engine.*ask)(request.name()));
    response = ToProto(info);
    return absl::OkStatus();
  };
}

// What LoadAdapter begins: the engine's adapter thread answers. `loads`: limits the calls under way.
absl::Status Load(Engine& engine, CallerLimiter& loads, const std::string& caller,
                  const v1::LoadAdapterRequest& request, LaterAnswer<v1::Adapter>::Done done) {
  if (request.tier() == v1::ADAPTER_TIER_DISK || !v1::AdapterTier_IsValid(request.tier())) {
    return BadField("tier", absl::StrCat("is ", static_cast<int>(request.tier()),
                                         "; allowed are ADAPTER_TIER_HOST and ADAPTER_TIER_DEVICE"));
  }
  const AdapterTier tier = request.tier() == v1::ADAPTER_TIER_HOST ? AdapterTier::kHost : AdapterTier::kDevice;
  std::shared_ptr<CallerLimiter::Permit> permit = loads.TryAcquire(caller);
  if (permit == nullptr) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kLoadsBusy,
                     absl::StrCat("at most ", loads.most_of_one(), " LoadAdapter calls of one caller, and ",
                                  loads.most(), " in all, wait at a time"),
                     absl::Seconds(1));
  }
  engine.LoadAdapter(request.name(), tier, request.pin(), caller,
                     [permit = std::move(permit), done = std::move(done)](absl::StatusOr<AdapterInfo> loaded) mutable {
                       permit = nullptr;
                       if (!loaded.ok()) {
                         done(loaded.status());
                       } else {
                         done([&loaded](v1::Adapter& response) { response = ToProto(*loaded); });
                       }
                     });
  return absl::OkStatus();
}

}  // namespace

AdapterService::AdapterService(ServiceContext* service)
    : UnparsedService(v1::AdapterService::service_full_name()), service_(service) {
  AddUnary("ListAdapters", &AdapterService::ListAdapters);
  AddUnary("GetAdapter", &AdapterService::GetAdapter);
  AddUnary("LoadAdapter", &AdapterService::LoadAdapter);
  AddUnary("UnloadAdapter", &AdapterService::UnloadAdapter);
  AddClientStreaming("UploadAdapter", &AdapterService::UploadAdapter);
  AddUnary("DeleteAdapter", &AdapterService::DeleteAdapter);
}

grpc::ServerUnaryReactor* AdapterService::ListAdapters(grpc::CallbackServerContext* context,
                                                       const Unparsed<v1::ListAdaptersRequest>* request,
                                                       v1::ListAdaptersResponse* response) {
  return AnswerFromDisk(service_, "ListAdapters", Scope::kAdaptersRead, context, request, response, &List);
}

grpc::ServerUnaryReactor* AdapterService::GetAdapter(grpc::CallbackServerContext* context,
                                                     const Unparsed<v1::GetAdapterRequest>* request,
                                                     v1::Adapter* response) {
  return AnswerFromDisk(service_, "GetAdapter", Scope::kAdaptersRead, context, request, response,
                        AnswerOf<v1::GetAdapterRequest>(&Engine::GetAdapter));
}

grpc::ServerUnaryReactor* AdapterService::UnloadAdapter(grpc::CallbackServerContext* context,
                                                        const Unparsed<v1::UnloadAdapterRequest>* request,
                                                        v1::Adapter* response) {
  return AnswerFromDisk(service_, "UnloadAdapter", Scope::kAdaptersWrite, context, request, response,
                        AnswerOf<v1::UnloadAdapterRequest>(&Engine::UnloadAdapter));
}

grpc::ServerUnaryReactor* AdapterService::LoadAdapter(grpc::CallbackServerContext* context,
                                                      const Unparsed<v1::LoadAdapterRequest>* request,
                                                      v1::Adapter* response) {
  const auto call = std::make_shared<LaterAnswer<v1::Adapter>>(service_, "LoadAdapter", context, response);
  call->Start(Scope::kAdaptersWrite, request,
              [&](Engine& engine, const v1::LoadAdapterRequest& asked, LaterAnswer<v1::Adapter>::Done done) {
                return Load(engine, service_->loads, call->caller(), asked, std::move(done));
              });
  return call.get();
}

grpc::ServerReadReactor<Unparsed<v1::UploadAdapterRequest>>* AdapterService::UploadAdapter(
    grpc::CallbackServerContext* context, v1::Adapter* response) {
  return StartUpload(service_, &upload_thread_, context, response);
}

grpc::ServerUnaryReactor* AdapterService::DeleteAdapter(grpc::CallbackServerContext* context,
                                                        const Unparsed<v1::DeleteAdapterRequest>* request,
                                                        google::protobuf::Empty* response) {
  return AnswerFromDisk(service_, "DeleteAdapter", Scope::kAdaptersWrite, context, request, response,
                        [uploads = service_->uploads](Engine& engine, const v1::DeleteAdapterRequest& asked,
                                                      google::protobuf::Empty&) -> absl::Status {
                          ABSL_RETURN_IF_ERROR(uploads->CheckServed());
                          return engine.DeleteAdapter(asked.name());
                        });
}

}  // namespace hotlora
