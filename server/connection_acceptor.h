#ifndef HOTLORA_SERVER_CONNECTION_ACCEPTOR_H_
#define HOTLORA_SERVER_CONNECTION_ACCEPTOR_H_

#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/server_builder.h>

#include "server/line_sampler.h"
#include "server/peer_address.h"
#include "server/peer_connections.h"
#include "src/metrics/call_metrics.h"

namespace hotlora {

// Raises this process's limit of open files to the most that it may set, and returns it.
uint64_t RaiseFileLimit();

// Listens for gRPC, accepts on a thread of its own, and hands the connections over. gRPC 1.51's own listener never
// accepts again once it found all of the process's descriptors in use (CVE-2023-4785). This one closes connections that
// come while few descriptors are left, so that files can still be opened, and goes on accepting. It also closes those
// of a peer that has many open already. Thread-safe.
class ConnectionAcceptor {
 public:
  using Target = grpc::experimental::ExternalConnectionAcceptor;

  struct Options {
    // Connections that one peer may have open; never more than half of those that there are descriptors for.
    int most_of_one_peer = 512;
    std::function<bool(const IpAddress&)> is_unlimited;        // peers that may have any number
    std::function<void(ConnectionRefusal reason)> on_refused;  // for each connection that is closed at once
  };

  // `listen`: as in ListenTcp; 0.0.0.0 is all addresses of IPv6 too, as gRPC has it. Connections wait until Start.
  static absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> Listen(const std::string& listen, Options options);
  ~ConnectionAcceptor();

  int port() const { return port_; }

  // Hands connections to `target`, whose server runs. Once.
  void Start(std::unique_ptr<Target> target);

  // Stops listening; nothing is handed over any more.
  void Stop();

  // Whether a connection was refused for want of descriptors within the last few seconds.
  bool refuses() const;

  // Connections that were handed over, refused, or closed by their peer so far. It stands still while nothing is
  // accepted.
  uint64_t taken() const { return taken_; }

  // Where it listens.
  const sockaddr_storage& address() const { return address_; }

 private:
  ConnectionAcceptor(int listener, int port, Options options);
  void Run();
  void TakeOne();
  bool MayStay(const sockaddr_storage& peer, int connection);
  void NoteShortOfDescriptors(const char* why);

  const int port_;
  const Options options_;
  const int largest_descriptor_;  // of a connection that is kept
  sockaddr_storage address_{};
  const int most_of_one_peer_;
  PeerConnections connections_;  // of the thread
  int listener_;
  int stop_event_;
  std::unique_ptr<Target> target_;
  std::atomic<std::chrono::steady_clock::time_point> quiet_from_{};  // refusals are forgotten then
  std::atomic<uint64_t> taken_ = 0;
  LineSampler warnings_{1, absl::Minutes(1)}, peer_warnings_{1, absl::Minutes(1)};
  std::thread thread_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CONNECTION_ACCEPTOR_H_
