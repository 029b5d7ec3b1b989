#ifndef HOTLORA_SERVER_RPC_CALL_H_
#define HOTLORA_SERVER_RPC_CALL_H_

// What every RPC has in common: who may call, its request id, and the one way to end it.

#include <array>
#include <atomic>
#include <functional>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "server/access_log.h"
#include "server/caller_limiter.h"
#include "server/guess_delay.h"
#include "server/line_sampler.h"
#include "server/peer_address.h"
#include "server/tokens.h"
#include "server/upload_gate.h"
#include "src/base/exception_status.h"
#include "src/base/mutex.h"
#include "src/base/serial_executor.h"
#include "src/base/stopwatch.h"
#include "src/engine/engine.h"
#include "src/metrics/metrics.h"

namespace hotlora {

// When calls came, and how many have a reactor that gRPC still holds. Thread-safe.
class ActiveCalls {
 public:
  void Arrived();  // each call, whether it gets a reactor or is answered at once
  void Add();
  void Remove();
  // False if `timeout` passed first.
  bool WaitUntilNone(absl::Duration timeout);
  // Returns once no call has arrived for `quiet`, or `timeout` has passed.
  void WaitUntilQuiet(absl::Duration quiet, absl::Duration timeout);

 private:
  Mutex mu_;
  CondVar none_;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time last_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // when a call arrived, as SteadyNow
};

// What the services share. Outlives every call.
struct ServiceContext {
  static constexpr int kMostLoads = 64, kMostLoadsOfOne = 16;

  std::atomic<Engine*> engine{nullptr};  // null until it has warmed up; outlives every call
  Metrics* metrics = nullptr;
  const TokenStore* tokens = nullptr;  // null: every caller may do everything
  AccessLog* access_log = nullptr;     // null: there is none
  uint64_t max_message_bytes = 0;
  UploadGate* uploads = nullptr;  // outlives every call
  TrustedProxies trusted_proxies;
  GuessDelay* guesses = nullptr;                     // outlives every call
  CallerLimiter loads{kMostLoads, kMostLoadsOfOne};  // LoadAdapter calls under way
  ActiveCalls active_calls;
  absl::Duration send_patience = absl::Seconds(30);  // for a caller to read what is sent
  std::array<LineSampler, 17> failure_lines;         // by the code of calls that end with an error
  LineSampler guess_lines;                           // of the access log, for calls of peers that guess tokens
  SerialExecutor disk_thread{"disk-calls"};          // calls that look at adapters' files, and do not read them
};

// One RPC under way. Not thread-safe; belongs to the handler or its reactor.
class RpcCall {
 public:
  // `method`: the bare RPC name, a string literal. `context` outlives this.
  RpcCall(ServiceContext* service, const char* method, grpc::CallbackServerContext* context);

  // Whether the caller's token has `scope`: Unauthenticated or PermissionDenied else.
  absl::Status Authorize(Scope scope);

  // Unavailable (STARTING) until the engine has warmed up.
  absl::StatusOr<Engine*> FindEngine() const;

  // Authorize, then FindEngine.
  absl::StatusOr<Engine*> Open(Scope scope);

  // What goes into the trailer x-request-id: the caller's metadata of that name or a made-up one
  // until this is called. Ids that no trailer could carry are ignored.
  void set_request_id(absl::string_view id);
  const std::string& request_id() const { return request_id_; }

  // Puts x-request-id and the caller's traceparent into the initial metadata too: from here on the call cannot be
  // refused, since a refusal is trailers alone. Before anything is written; Close does it for calls that end well.
  void SendIdsFirst();

  // Who calls, for limits that are each caller's own: the token's digest; without tokens the identity in the caller's
  // certificate, or else the peer (Peer::network).
  std::string caller() const;

  bool has_tokens() const { return service_->tokens != nullptr; }  // whether callers need one

  double seconds() const { return stopwatch_.Seconds(); }  // since arrival

  // What the access log is to say beside the rest.
  std::optional<ImageAccess>& image_access() { return image_access_; }

  // How long the caller waits, as SteadyNow has it.
  absl::Time Deadline() const;

  // Why the call was cancelled, for one that gRPC says is: DeadlineExceeded if its deadline has
  // passed, else Cancelled.
  absl::Status WhyCancelled() const;

  // Ends the call: sets the trailers, counts it and logs a line here, unless too many failed alike, and in the access
  // log. Once, before the last
  // message or status is handed to gRPC, so that a caller who has the answer finds it counted.
  grpc::Status Close(const absl::Status& status);

  // Close, then `finish` with what gRPC is to have: here and now, or later if the call had no good token and its peer
  // guesses tokens (GuessDelay). What `finish` uses must live until it has run.
  void End(const absl::Status& status, std::function<void(const grpc::Status&)> finish);

  ServiceContext& service() { return *service_; }

 private:
  void WriteAccessLine(const std::string& code, const std::string& reason, double seconds);

  ServiceContext* const service_;
  const char* const method_;
  grpc::CallbackServerContext* const context_;
  const Stopwatch stopwatch_;
  const absl::Time arrival_;
  const Peer peer_;
  bool guesses_ = false;  // the call had no good token, and its peer has made many of these
  std::string request_id_;
  std::string traceparent_;
  std::optional<ImageAccess> image_access_;
  bool ids_sent_ = false;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_RPC_CALL_H_
