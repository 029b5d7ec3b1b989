#ifndef HOTLORA_SERVER_PEER_CONNECTIONS_H_
#define HOTLORA_SERVER_PEER_CONNECTIONS_H_

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace hotlora {

// How many connections each peer has open. gRPC owns them and does not say when it closes one. So a connection is known
// by its descriptor's number and by its socket's cookie, which the kernel gives to no other socket: if the number has
// another cookie now, or none, the connection is closed. Not thread-safe.
class PeerConnections {
 public:
  explicit PeerConnections(int most_of_one) : most_of_one_(most_of_one) {}

  // Notes that `descriptor`, a socket just accepted, is a connection of `peer`. False, and it is not noted, if the peer
  // has as many open as it may.
  bool Add(const std::string& peer, int descriptor);

 private:
  struct Connection {
    int descriptor;
    uint64_t cookie;
  };

  void Forget(int descriptor);

  const int most_of_one_;
  // As many entries as descriptor numbers that were connections once.
  std::unordered_map<std::string, std::vector<Connection>> of_peer_;
  std::unordered_map<int, std::string> peer_of_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_PEER_CONNECTIONS_H_
