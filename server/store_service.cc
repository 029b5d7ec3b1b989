#include "server/store_service.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "server/unary_call.h"
#include "server/upload_call.h"
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
  if (!absl::ConsumePrefix(&name, kTokenPrefix) || name.empty() || absl::StrContains(name, '\n')) {
    return BadField("page_token", "was not issued by this server");
  }
  return std::string(name);
}

constexpr uint32_t kDefaultPageSize = 50;
constexpr uint32_t kMaxPageSize = 1000;

template <typename Calls>
absl::Status ListFiles(Engine& engine, const typename Calls::ListRequest& request,
                       typename Calls::ListResponse& response) {
  const uint32_t asked = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  const size_t page_size = std::min(asked, kMaxPageSize);
  ABSL_ASSIGN_OR_RETURN(const std::string after, FromPageToken(request.page_token()));
  ABSL_ASSIGN_OR_RETURN(const std::vector<AdapterInfo> found, Calls::StoreOf(engine).List(after, page_size + 1));
  for (size_t i = 0; i < std::min(found.size(), page_size); ++i) {
    *Calls::AddTo(response) = Calls::ToItem(found[i]);
  }
  if (found.size() > page_size) {
    response.set_next_page_token(ToPageToken(found[page_size - 1].name));
  }
  return absl::OkStatus();
}

// What Load begins: the engine's adapter thread answers. `loads`: limits the calls under way.
template <typename Calls>
absl::Status LoadFile(Engine& engine, CallerLimiter& loads, const std::string& caller,
                      const typename Calls::LoadRequest& request,
                      typename LaterAnswer<typename Calls::Item>::Done done) {
  if (request.tier() == v1::ADAPTER_TIER_DISK || !v1::AdapterTier_IsValid(request.tier())) {
    return BadField("tier", absl::StrCat("is ", static_cast<int>(request.tier()),
                                         "; allowed are ADAPTER_TIER_HOST and ADAPTER_TIER_DEVICE"));
  }
  const AdapterTier tier = request.tier() == v1::ADAPTER_TIER_HOST ? AdapterTier::kHost : AdapterTier::kDevice;
  std::shared_ptr<CallerLimiter::Permit> permit = loads.TryAcquire(caller);
  if (permit == nullptr) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kLoadsBusy,
                     absl::StrCat("at most ", loads.most_of_one(), " ", Calls::kLoad, " calls of one caller, and ",
                                  loads.most(), " in all, wait at a time"),
                     absl::Seconds(1));
  }
  Calls::StoreOf(engine).Load(
      request.name(), tier, request.pin(), caller,
      [permit = std::move(permit), done = std::move(done)](absl::StatusOr<AdapterInfo> loaded) mutable {
        permit = nullptr;
        if (!loaded.ok()) {
          done(loaded.status());
        } else {
          done([&loaded](typename Calls::Item& response) { response = Calls::ToItem(*loaded); });
        }
      });
  return absl::OkStatus();
}

}  // namespace

template <typename Calls>
StoreService<Calls>::StoreService(ServiceContext* service)
    : UnparsedService(Calls::Service::service_full_name()), service_(service) {
  AddUnary(Calls::kList, &StoreService::List);
  AddUnary(Calls::kGet, &StoreService::Get);
  AddUnary(Calls::kLoad, &StoreService::Load);
  AddUnary(Calls::kUnload, &StoreService::Unload);
  AddClientStreaming(Calls::kUpload, &StoreService::Upload);
  AddUnary(Calls::kDelete, &StoreService::Delete);
}

template <typename Calls>
grpc::ServerUnaryReactor* StoreService<Calls>::List(grpc::CallbackServerContext* context,
                                                    const Unparsed<typename Calls::ListRequest>* request,
                                                    typename Calls::ListResponse* response) {
  return AnswerFromDisk(service_, Calls::kList, Scope::kAdaptersRead, context, request, response, &ListFiles<Calls>);
}

template <typename Calls>
grpc::ServerUnaryReactor* StoreService<Calls>::Get(grpc::CallbackServerContext* context,
                                                   const Unparsed<typename Calls::GetRequest>* request,
                                                   Item* response) {
  return AnswerFromDisk(service_, Calls::kGet, Scope::kAdaptersRead, context, request, response,
                        [](Engine& engine, const typename Calls::GetRequest& asked, Item& answer) -> absl::Status {
                          ABSL_ASSIGN_OR_RETURN(const AdapterInfo info, Calls::StoreOf(engine).Get(asked.name()));
                          answer = Calls::ToItem(info);
                          return absl::OkStatus();
                        });
}

template <typename Calls>
grpc::ServerUnaryReactor* StoreService<Calls>::Unload(grpc::CallbackServerContext* context,
                                                      const Unparsed<typename Calls::UnloadRequest>* request,
                                                      Item* response) {
  return AnswerFromDisk(service_, Calls::kUnload, Scope::kAdaptersWrite, context, request, response,
                        [](Engine& engine, const typename Calls::UnloadRequest& asked, Item& answer) -> absl::Status {
                          ABSL_ASSIGN_OR_RETURN(const AdapterInfo info, Calls::StoreOf(engine).Unload(asked.name()));
                          answer = Calls::ToItem(info);
                          return absl::OkStatus();
                        });
}

template <typename Calls>
grpc::ServerUnaryReactor* StoreService<Calls>::Load(grpc::CallbackServerContext* context,
                                                    const Unparsed<typename Calls::LoadRequest>* request,
                                                    Item* response) {
  const auto call = std::make_shared<LaterAnswer<Item>>(service_, Calls::kLoad, context, response);
  call->Start(Scope::kAdaptersWrite, request,
              [&](Engine& engine, const typename Calls::LoadRequest& asked, typename LaterAnswer<Item>::Done done) {
                return LoadFile<Calls>(engine, service_->loads, call->caller(), asked, std::move(done));
              });
  return call.get();
}

template <typename Calls>
grpc::ServerReadReactor<Unparsed<typename Calls::UploadRequest>>* StoreService<Calls>::Upload(
    grpc::CallbackServerContext* context, Item* response) {
  return StartUpload<Calls>(service_, &upload_thread_, context, response);
}

template <typename Calls>
grpc::ServerUnaryReactor* StoreService<Calls>::Delete(grpc::CallbackServerContext* context,
                                                      const Unparsed<typename Calls::DeleteRequest>* request,
                                                      google::protobuf::Empty* response) {
  return AnswerFromDisk(service_, Calls::kDelete, Scope::kAdaptersWrite, context, request, response,
                        [uploads = service_->uploads](Engine& engine, const typename Calls::DeleteRequest& asked,
                                                      google::protobuf::Empty&) -> absl::Status {
                          ABSL_RETURN_IF_ERROR(uploads->CheckServed());
                          return Calls::StoreOf(engine).Delete(asked.name());
                        });
}

template class StoreService<AdapterCalls>;
template class StoreService<ControlCalls>;
template class StoreService<ImagePromptCalls>;

}  // namespace hotlora
