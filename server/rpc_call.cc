#include "server/rpc_call.h"

#include <algorithm>
#include <exception>
#include <new>
#include <optional>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "server/status_mapping.h"
#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr absl::Duration kStartingRetryDelay = absl::Seconds(1);

absl::string_view FindMetadata(const grpc::CallbackServerContext& context, const char* key) {
  const auto found = context.client_metadata().find(key);
  return found == context.client_metadata().end() ? absl::string_view()
                                                  : absl::string_view(found->second.data(), found->second.size());
}

bool IsGoodRequestId(absl::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes && std::all_of(id.begin(), id.end(), absl::ascii_isprint);
}

std::string RandomRequestId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad16), absl::Hex(random(), absl::kZeroPad16));
}

}  // namespace

void ActiveCalls::Add() {
  std::lock_guard<std::mutex> lock(mu_);
  ++count_;
}

void ActiveCalls::Remove() {
  std::lock_guard<std::mutex> lock(mu_);
  if (--count_ == 0) {
    none_.notify_all();
  }
}

bool ActiveCalls::WaitUntilNone(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mu_);
  return none_.wait_for(lock, absl::ToChronoMilliseconds(timeout), [this] { return count_ == 0; });
}

RpcCall::RpcCall(ServiceContext* service, const char* method, grpc::CallbackServerContext* context)
    : service_(service), method_(method), context_(context), start_(std::chrono::steady_clock::now()) {
  set_request_id(FindMetadata(*context, kRequestIdKey));
  if (request_id_.empty()) {
    request_id_ = RandomRequestId();
  }
}

absl::StatusOr<Engine*> RpcCall::Open(Scope scope) {
  if (service_->tokens != nullptr) {
    const absl::Status allowed = service_->tokens->Check(FindMetadata(*context_, "authorization"), scope);
    if (!allowed.ok()) {
      return allowed;
    }
  }
  Engine* const engine = service_->engine.load();
  if (engine == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, "the server is starting; try again shortly",
                     ErrorDetails{"STARTING", {}, kStartingRetryDelay});
  }
  return engine;
}

void RpcCall::set_request_id(absl::string_view id) {
  if (IsGoodRequestId(id)) {
    request_id_ = std::string(id);
  }
}

absl::Status RpcCall::WhyCancelled() const {
  // The caller's own clock fires a little before ours and resets the stream: its deadline counts as
  // passed then.
  constexpr auto kTolerance = std::chrono::milliseconds(100);
  const auto deadline = context_->deadline();
  const auto now = std::chrono::system_clock::now();
  if (deadline < now || deadline - now < kTolerance) {
    return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED", "the call's deadline has passed");
  }
  return MakeError(absl::StatusCode::kCancelled, "CANCELLED", "the caller cancelled the call or went away");
}

grpc::Status RpcCall::Close(const absl::Status& status) {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const std::string code = CodeName(status.code());
  context_->AddTrailingMetadata(kRequestIdKey, request_id_);
  if (const std::optional<std::string> pushback = RetryPushback(status); pushback.has_value()) {
    context_->AddTrailingMetadata("grpc-retry-pushback-ms", *pushback);
  }
  service_->metrics->CountRequest(method_, code, seconds);
  if (status.ok()) {
    LogInfo(method_, " ", code, " request_id=", request_id_, " seconds=", seconds);
  } else {
    // The message may quote what the caller sent; the reason does not.
    LogInfo(method_, " ", code, " reason=", GetErrorDetails(status).reason, " request_id=", request_id_,
            " seconds=", seconds);
    LogDebug("request_id=", request_id_, " ", status.message());
  }
  return ToGrpcStatus(status);
}

absl::Status CurrentExceptionStatus() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", "the server is out of memory");
  } catch (const std::exception& error) {
    LogError("unexpected exception: ", error.what());
  } catch (...) {
    LogError("unexpected exception of no known kind");
  }
  return MakeError(absl::StatusCode::kInternal, "INTERNAL", "internal error");
}

}  // namespace hotlora
