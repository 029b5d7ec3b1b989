#ifndef HOTLORA_SERVER_SERVER_H_
#define HOTLORA_SERVER_SERVER_H_

// The gRPC listener with its services, from the first connection to the last.

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/server.h>

#include "server/access_log.h"
#include "server/adapter_service.h"
#include "server/certificates.h"
#include "server/connection_acceptor.h"
#include "server/flags.h"
#include "server/guess_delay.h"
#include "server/image_service.h"
#include "server/peer_address.h"
#include "server/rpc_call.h"
#include "server/server_info_service.h"
#include "server/tokens.h"
#include "server/upload_gate.h"

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
  absl::Duration send_patience = absl::Seconds(30);  // for a caller to read what is sent; then its call is cancelled
  absl::Duration longest_request = absl::InfiniteDuration();
};

// The longest that a call may take. What runs on a connection of 30 minutes is cut off after that.
absl::Duration LongestCall(const ServerOptions& options);

// Health (grpc.health.v1, which needs no token) says of "" and of each service: NOT_SERVING until
// Serve, SERVING then, NOT_SERVING from StopServing on; "live" is SERVING as long as the process
// answers. Thread-safe.
class Server {
 public:
  // Listens. Calls are answered with UNAVAILABLE (STARTING) until Serve. `metrics` outlives the
  // server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options, Metrics* metrics);
  ~Server();  // stops at once, if Stop was not called

  int port() const { return acceptor_->port(); }

  // Whether health says SERVING and new connections are taken.
  bool serving() const { return serving_ && !acceptor_->refuses(); }

  // From now on calls reach `engine`, which has warmed up and outlives the server.
  void Serve(Engine* engine);

  // For the calls and the connections that come from now on; only if the options had tokens, or certificates.
  void ReplaceTokens(Tokens tokens);
  void ReplaceCertificate(Certificate certificate);

  // While the base weights are damaged, health says NOT_SERVING; calls are answered.
  void SetBaseIntact(bool intact);

  // Health says NOT_SERVING from now on; calls are still answered.
  void StopServing();

  // StopServing, then gives what runs up to `timeout` to finish and ends the rest (UNAVAILABLE,
  // DRAINING). Until no call has come for 1 s, but 5 s at most and not after `timeout`, new ones are
  // refused; then the listener closes. True where everything could finish. Blocks; call it once.
  bool Stop(absl::Duration timeout);

 private:
  explicit Server(ServerOptions options);
  absl::Status Listen();
  void TellHealth();

  const ServerOptions options_;
  std::optional<TokenStore> tokens_;
  std::unique_ptr<CertificateStore> certificates_;        // null: no TLS
  std::shared_ptr<grpc::ServerCredentials> credentials_;  // gRPC calls it as long as server_ lives
  UploadGate uploads_;
  GuessDelay guesses_;
  ServiceContext context_;
  ImageService images_;
  AdapterService adapters_;
  ServerInfoService info_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<ConnectionAcceptor> acceptor_;  // before anything else of this ends
  std::atomic<bool> serving_ = false;
  std::atomic<bool> stopping_ = false;

  std::mutex mu_;
  bool open_ = false;        // guarded by mu_: between Serve and StopServing
  bool base_intact_ = true;  // guarded by mu_
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SERVER_H_
