#include "server/adapter_service.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "server/proto_mapping.h"
#include "src/base/error_details.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

// A page token is the last name of the page before, dressed so that nobody reads more into it.
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
  if (!absl::ConsumePrefix(&name, kTokenPrefix) || !ValidateAdapterName(name).ok()) {
    return BadField("page_token", "is none that this server gave");
  }
  return std::string(name);
}

absl::Status List(Engine& engine, const v1::ListAdaptersRequest& request, v1::ListAdaptersResponse* response) {
  const uint32_t asked = request.page_size() == 0 ? AdapterService::kDefaultPageSize : request.page_size();
  const size_t page_size = std::min(asked, AdapterService::kMaxPageSize);
  ABSL_ASSIGN_OR_RETURN(const std::string after, FromPageToken(request.page_token()));
  ABSL_ASSIGN_OR_RETURN(const std::vector<AdapterInfo> found, engine.ListAdapters(after, page_size + 1));
  for (size_t i = 0; i < std::min(found.size(), page_size); ++i) {
    *response->add_adapters() = ToProto(found[i]);
  }
  if (found.size() > page_size) {
    response->set_next_page_token(ToPageToken(found[page_size - 1].name));
  }
  return absl::OkStatus();
}

// Runs a call that is answered at once.
template <typename Body>
grpc::ServerUnaryReactor* Answer(ServiceContext* service, const char* method, Scope scope,
                                 grpc::CallbackServerContext* context, Body body) {
  RpcCall call(service, method, context);
  const absl::Status status = CatchExceptions([&]() -> absl::Status {
    ABSL_ASSIGN_OR_RETURN(Engine* const engine, call.Open(scope));
    return body(*engine);
  });
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(call.Close(status));
  return reactor;
}

// LoadAdapter under way. gRPC holds it until its last reaction, the engine until it has answered.
class Loading final : public grpc::ServerUnaryReactor, public std::enable_shared_from_this<Loading> {
 public:
  Loading(ServiceContext* service, grpc::CallbackServerContext* context, v1::Adapter* response)
      : active_calls_(&service->active_calls), rpc_(service, "LoadAdapter", context), response_(response) {
    active_calls_->Add();
  }

  void Start(const v1::LoadAdapterRequest& request) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      held_by_grpc_ = shared_from_this();
    }
    const absl::Status status = CatchExceptions([&]() -> absl::Status {
      ABSL_ASSIGN_OR_RETURN(Engine* const engine, rpc_.Open(Scope::kAdaptersWrite));
      if (request.tier() == v1::ADAPTER_TIER_DISK || !v1::AdapterTier_IsValid(request.tier())) {
        return BadField("tier", absl::StrCat("is ", static_cast<int>(request.tier()),
                                             "; allowed are ADAPTER_TIER_HOST and ADAPTER_TIER_DEVICE"));
      }
      engine->LoadAdapter(
          request.name(), request.tier() == v1::ADAPTER_TIER_HOST ? AdapterTier::kHost : AdapterTier::kDevice,
          request.pin(),
          [self = shared_from_this()](absl::StatusOr<AdapterInfo> loaded) { self->End(std::move(loaded)); });
      return absl::OkStatus();
    });
    if (!status.ok()) {
      End(status);
    }
  }

  void OnDone() override {
    std::shared_ptr<Loading> self;
    std::lock_guard<std::mutex> lock(mu_);
    self = std::move(held_by_grpc_);
    active_calls_->Remove();
  }

 private:
  void End(absl::StatusOr<AdapterInfo> loaded) {
    std::lock_guard<std::mutex> lock(mu_);
    Finish(rpc_.Close(CatchExceptions([&]() -> absl::Status {
      ABSL_RETURN_IF_ERROR(loaded.status());
      *response_ = ToProto(*loaded);
      return absl::OkStatus();
    })));
  }

  ActiveCalls* const active_calls_;
  std::mutex mu_;
  RpcCall rpc_;                            // guarded by mu_ once the engine knows of the call
  v1::Adapter* const response_;            // gRPC's, until OnDone
  std::shared_ptr<Loading> held_by_grpc_;  // guarded by mu_
};

}  // namespace

grpc::ServerUnaryReactor* AdapterService::ListAdapters(grpc::CallbackServerContext* context,
                                                       const v1::ListAdaptersRequest* request,
                                                       v1::ListAdaptersResponse* response) {
  return Answer(service_, "ListAdapters", Scope::kAdaptersRead, context,
                [&](Engine& engine) { return List(engine, *request, response); });
}

grpc::ServerUnaryReactor* AdapterService::GetAdapter(grpc::CallbackServerContext* context,
                                                     const v1::GetAdapterRequest* request, v1::Adapter* response) {
  return Answer(service_, "GetAdapter", Scope::kAdaptersRead, context, [&](Engine& engine) -> absl::Status {
    ABSL_ASSIGN_OR_RETURN(const AdapterInfo info, engine.GetAdapter(request->name()));
    *response = ToProto(info);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdapterService::UnloadAdapter(grpc::CallbackServerContext* context,
                                                        const v1::UnloadAdapterRequest* request,
                                                        v1::Adapter* response) {
  return Answer(service_, "UnloadAdapter", Scope::kAdaptersWrite, context, [&](Engine& engine) -> absl::Status {
    ABSL_ASSIGN_OR_RETURN(const AdapterInfo info, engine.UnloadAdapter(request->name()));
    *response = ToProto(info);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdapterService::LoadAdapter(grpc::CallbackServerContext* context,
                                                      const v1::LoadAdapterRequest* request, v1::Adapter* response) {
  const auto call = std::make_shared<Loading>(service_, context, response);
  call->Start(*request);
  return call.get();
}

}  // namespace hotlora
