#ifndef HOTLORA_SERVER_SERVER_H_
#define HOTLORA_SERVER_SERVER_H_

// The gRPC listener with its services, from the first connection to the last.

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>

#include "server/access_log.h"
#include "server/certificates.h"
#include "server/connection_acceptor.h"
#include "server/flags.h"
#include "server/guess_delay.h"
#include "server/image_service.h"
#include "server/listener_probe.h"
#include "server/openai_service.h"
#include "server/peer_address.h"
#include "server/readiness.h"
#include "server/rpc_call.h"
#include "server/sdapi_service.h"
#include "server/server_info_service.h"
#include "server/store_service.h"
#include "server/tokens.h"
#include "server/upload_gate.h"
#include "src/base/mutex.h"
#include "src/base/periodic_thread.h"

namespace hotlora {

struct ServerOptions {
  std::string listen = "127.0.0.1:0";  // HOST:PORT; port 0 picks a free one
  uint32_t max_message_bytes = uint32_t{32} << 20;
  TlsFiles tls;
  absl::Duration certificate_interval = absl::Seconds(10);  // between looks at the files of `tls`
  std::optional<Tokens> tokens;                             // nullopt: every caller may do everything
  TrustedProxies trusted_proxies;
  GuessLimits guesses;
  AccessLog* access_log = nullptr;  // outlives the server; null: there is none
  bool reflection = false;
  UploadLimits uploads;
  // Called once when only a restart helps: the device is lost, work has been stuck for long, or the listener is deaf.
  // On a thread of the server or the engine, for which it must not wait.
  std::function<void()> on_lost;
  absl::Duration send_patience = absl::Seconds(30);  // for a caller to read what is sent; then its call is cancelled
  absl::Duration longest_request = absl::InfiniteDuration();
};

// The longest that a call may take. What runs on a connection of 30 minutes is cut off after that.
absl::Duration LongestCall(const ServerOptions& options);

// Health (grpc.health.v1, which needs no token) says of "" and of each service whether the server is ready: from Serve
// to StopServing, except while another reason of `readiness` is in force. "live" is SERVING as long as the process
// answers. Thread-safe.
class Server {
 public:
  // Listens. Calls are answered with UNAVAILABLE (STARTING) until Serve. `metrics` outlives the
  // server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options, Metrics* metrics);
  ~Server();  // stops at once, if Stop was not called

  int port() const { return acceptor_->port(); }

  const Readiness& readiness() const { return *readiness_; }

  // Sets the options' functions that tell how an engine is, so that readiness follows the engine that is made with
  // them. The server outlives it.
  void FollowEngine(EngineOptions& options);

  // From now on calls reach `engine`, which has warmed up and outlives the server.
  void Serve(Engine* engine);

  // For the calls and the connections that come from now on; only if the options had tokens, or certificates.
  void ReplaceTokens(Tokens tokens);
  void ReplaceCertificate(Certificate certificate);

  // Health says NOT_SERVING from now on; calls are still answered.
  void StopServing();

  // StopServing, then gives what runs up to `timeout` to finish and ends the rest (UNAVAILABLE,
  // DRAINING). Until no call has come for 1 s, but 5 s at most and not after `timeout`, new ones are
  // refused; then the listener closes. True if everything could finish. Blocks; call it once.
  bool Stop(absl::Duration timeout);

 private:
  Server(ServerOptions options, Metrics* metrics);
  absl::Status Listen();
  void SetHealth(bool ready);
  void LookAtListener();
  void ReportLost(absl::string_view why);

  const ServerOptions options_;
  std::optional<TokenStore> tokens_;
  std::unique_ptr<CertificateStore> certificates_;        // null: no TLS
  std::shared_ptr<grpc::ServerCredentials> credentials_;  // gRPC calls it as long as server_ lives
  UploadGate uploads_;
  GuessDelay guesses_;
  ServiceContext context_;
  ImageService images_;
  OpenAiService openai_;
  AdapterService adapters_;
  ControlService controls_;
  ImagePromptService image_prompts_;
  ServerInfoService info_;
  SdapiService sdapi_;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<bool> lost_ = false;
  Mutex mu_;
  grpc::HealthCheckServiceInterface* health_ ABSL_GUARDED_BY(mu_) = nullptr;  // of server_; null after it has ended
  std::unique_ptr<Readiness> readiness_;
  std::unique_ptr<ConnectionAcceptor> acceptor_;  // before anything else of this ends
  std::optional<ListenerProbe> probe_;
  std::optional<PeriodicThread> listener_watch_;  // last: it uses the others
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SERVER_H_
