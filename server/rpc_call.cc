#include "server/rpc_call.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

#include "server/status_mapping.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"
#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/base/steady_time.h"
#include "src/request/request_id.h"
#include "src/request/unavailable.h"

namespace hotlora {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr char kTraceParentKey[] = "traceparent";
constexpr char kPreviousAttemptsKey[] = "grpc-previous-rpc-attempts";  // gRFC A6

absl::string_view FindMetadata(const grpc::CallbackServerContext& context, const char* key) {
  const auto found = context.client_metadata().find(key);
  return found == context.client_metadata().end() ? absl::string_view()
                                                  : absl::string_view(found->second.data(), found->second.size());
}

// The caller's authorization header; several of them, of which one might be good, are as good as a wrong one.
absl::string_view FindAuthorization(const grpc::CallbackServerContext& context) {
  constexpr char kKey[] = "authorization";
  return context.client_metadata().count(kKey) > 1 ? "given more than once" : FindMetadata(context, kKey);
}

// The peer of the connection, or the one that a trusted proxy names.
Peer FindPeer(const TrustedProxies& proxies, const grpc::CallbackServerContext& context) {
  std::vector<absl::string_view> forwarded;
  const auto [begin, end] = context.client_metadata().equal_range("x-forwarded-for");
  for (auto entry = begin; entry != end; ++entry) {
    forwarded.emplace_back(entry->second.data(), entry->second.size());
  }
  return proxies.PeerOf(context.peer(), forwarded);
}

// A name for whom the caller's certificate is for, the same after it was renewed; empty without a certificate.
std::string CertificateCaller(const grpc::CallbackServerContext& context) {
  const std::shared_ptr<const grpc::AuthContext> authenticated = context.auth_context();
  if (authenticated == nullptr || !authenticated->IsPeerAuthenticated()) {
    return "";
  }
  std::vector<grpc::string_ref> names = authenticated->GetPeerIdentity();  // subject alternative names, else the CN
  std::sort(names.begin(), names.end());
  Sha256 hash;
  for (const grpc::string_ref& name : names) {
    const std::string sized = absl::StrCat(name.size(), ":");
    hash.Update(sized.data(), sized.size());
    hash.Update(name.data(), name.size());
  }
  return absl::StrCat("certificate:", hash.HexDigest());
}

// W3C Trace Context, version 00: 00-<trace id>-<parent id>-<flags>. Other text is ignored.
bool IsGoodTraceParent(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '-');
  const auto is_hex = [](absl::string_view part, size_t size) {
    return part.size() == size && std::all_of(part.begin(), part.end(), [](char c) {
             return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
           });
  };
  const auto is_zero = [](absl::string_view part) { return part.find_first_not_of('0') == absl::string_view::npos; };
  return parts.size() == 4 && parts[0] == "00" && is_hex(parts[1], 32) && is_hex(parts[2], 16) && is_hex(parts[3], 2) &&
         !is_zero(parts[1]) && !is_zero(parts[2]);
}

}  // namespace

void ActiveCalls::Arrived() {
  MutexLock lock(&mu_);
  last_ = SteadyNow();
}

void ActiveCalls::Add() {
  MutexLock lock(&mu_);
  ++count_;
}

void ActiveCalls::Remove() {
  MutexLock lock(&mu_);
  if (--count_ == 0) {
    none_.SignalAll();
  }
}

bool ActiveCalls::WaitUntilNone(absl::Duration timeout) {
  const absl::Time deadline = SteadyNow() + timeout;
  MutexLock lock(&mu_);
  while (count_ > 0 && none_.WaitUntil(&mu_, deadline)) {
  }
  return count_ == 0;
}

void ActiveCalls::WaitUntilQuiet(absl::Duration quiet, absl::Duration timeout) {
  const absl::Time end = SteadyNow() + timeout;
  for (;;) {
    const absl::Time now = SteadyNow();
    absl::Time until;
    {
      MutexLock lock(&mu_);
      until = std::min(last_ + quiet, end);
    }
    if (now >= until) {
      return;
    }
    absl::SleepFor(until - now);
  }
}

RpcCall::RpcCall(ServiceContext* service, const char* method, grpc::CallbackServerContext* context)
    : service_(service),
      method_(method),
      context_(context),
      arrival_(absl::Now()),
      peer_(FindPeer(service->trusted_proxies, *context)) {
  service->active_calls.Arrived();
  CallMetrics& metrics = service->metrics->calls();
  metrics.AddInFlight(method, 1);
  if (!FindMetadata(*context, kPreviousAttemptsKey).empty()) {
    metrics.CountRetry();
  }
  if (const absl::string_view trace = FindMetadata(*context, kTraceParentKey); IsGoodTraceParent(trace)) {
    traceparent_ = std::string(trace);
  }
  set_request_id(FindMetadata(*context, kRequestIdKey));
  if (request_id_.empty()) {
    request_id_ = MakeRequestId();
  }
}

absl::Status RpcCall::Authorize(Scope scope) {
  if (service_->tokens == nullptr) {
    return absl::OkStatus();
  }
  const absl::string_view authorization = FindAuthorization(*context_);
  const absl::Status allowed = service_->tokens->current()->Check(authorization, scope);
  if (!allowed.ok()) {
    service_->metrics->calls().CountAuthFailure(absl::IsPermissionDenied(allowed) ? AuthFailure::kScope
                                                : authorization.empty()           ? AuthFailure::kMissing
                                                                                  : AuthFailure::kInvalid);
    guesses_ = absl::IsUnauthenticated(allowed) && service_->guesses->Note(peer_.network, SteadyNow());
  }
  return allowed;
}

absl::StatusOr<Engine*> RpcCall::Open(Scope scope) {
  ABSL_RETURN_IF_ERROR(Authorize(scope));
  return FindEngine();
}

absl::StatusOr<Engine*> RpcCall::FindEngine() const {
  Engine* const engine = service_->engine.load();
  if (engine == nullptr) {
    return StartingError();
  }
  return engine;
}

std::string RpcCall::caller() const {
  if (service_->tokens != nullptr) {
    return Tokens::CallerOf(FindAuthorization(*context_));
  }
  // A certificate on a trusted proxy's connection is the proxy's.
  const std::string certificate = peer_.forwarded ? "" : CertificateCaller(*context_);
  return certificate.empty() ? peer_.network : certificate;
}

void RpcCall::set_request_id(absl::string_view id) {
  if (!id.empty() && RequestIdFault(id).empty()) {
    request_id_ = std::string(id);
  }
}

void RpcCall::SendIdsFirst() {
  if (std::exchange(ids_sent_, true)) {
    return;
  }
  context_->AddInitialMetadata(kRequestIdKey, request_id_);
  if (!traceparent_.empty()) {
    context_->AddInitialMetadata(kTraceParentKey, traceparent_);
  }
}

absl::Time RpcCall::Deadline() const {
  const auto deadline = context_->deadline();
  return deadline == std::chrono::system_clock::time_point::max()
             ? absl::InfiniteFuture()
             : SteadyNow() + absl::FromChrono(deadline - std::chrono::system_clock::now());
}

absl::Status RpcCall::WhyCancelled() const {
  // The caller's own clock fires a little before ours and resets the stream: its deadline counts as
  // passed then.
  constexpr auto kTolerance = std::chrono::milliseconds(100);
  const auto deadline = context_->deadline();
  const auto now = std::chrono::system_clock::now();
  if (deadline < now || deadline - now < kTolerance) {
    return CallDeadlinePassed();
  }
  return MakeError(absl::StatusCode::kCancelled, error_reason::kCancelled,
                   "the caller cancelled the call or went away");
}

grpc::Status RpcCall::Close(const absl::Status& status) {
  const double seconds = this->seconds();
  const std::string code = CodeName(status.code());
  const std::string reason = status.ok() ? "" : GetErrorDetails(status).reason;
  if (status.ok()) {
    SendIdsFirst();
  }
  context_->AddTrailingMetadata(kRequestIdKey, request_id_);
  if (!traceparent_.empty()) {
    context_->AddTrailingMetadata(kTraceParentKey, traceparent_);
  }
  if (const std::optional<std::string> pushback = RetryPushback(status); pushback.has_value()) {
    context_->AddTrailingMetadata("grpc-retry-pushback-ms", *pushback);
  }
  service_->metrics->CountRequest(method_, code, seconds);
  service_->metrics->calls().AddInFlight(method_, -1);
  if (!status.ok()) {
    service_->metrics->calls().CountRejection(reason);
  }
  // The message may quote what the caller sent; the reason does not.
  const std::optional<uint64_t> unlogged =
      status.ok() ? 0 : service_->failure_lines.at(static_cast<size_t>(status.code())).Take(SteadyNow());
  if (unlogged.has_value()) {
    LogInfo(method_, " ", code, reason.empty() ? "" : " reason=", reason, " request_id=", LogField(request_id_),
            traceparent_.empty() ? "" : " traceparent=", traceparent_, " seconds=", seconds,
            *unlogged > 0 ? absl::StrCat(" unlogged_before=", *unlogged) : "");
  }
  if (!status.ok()) {
    LogDebug("request_id=", LogField(request_id_), " ", status.message());
  }
  if (service_->access_log != nullptr) {
    WriteAccessLine(code, reason, seconds);
  }
  return ToGrpcStatus(status);
}

void RpcCall::WriteAccessLine(const std::string& code, const std::string& reason, double seconds) {
  const std::optional<uint64_t> unlogged = guesses_ ? service_->guess_lines.Take(SteadyNow()) : 0;
  if (unlogged.has_value()) {
    service_->access_log->Write(ToJsonLine({arrival_, method_, code, reason, request_id_, traceparent_, peer_.name,
                                            seconds, *unlogged, std::move(image_access_)}));
  }
}

void RpcCall::End(const absl::Status& status, std::function<void(const grpc::Status&)> finish) {
  const grpc::Status ended = Close(status);
  if (guesses_) {
    service_->guesses->AnswerLate(peer_.network, [ended, finish = std::move(finish)] { finish(ended); });
  } else {
    finish(ended);
  }
}

}  // namespace hotlora
