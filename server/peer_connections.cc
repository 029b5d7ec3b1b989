#include "server/peer_connections.h"

#include <sys/socket.h>

#include <algorithm>

namespace hotlora {
namespace {

// Never 0 for a socket.
uint64_t CookieOf(int descriptor) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  return getsockopt(descriptor, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

}  // namespace

bool PeerConnections::Add(const std::string& peer, int descriptor) {
  Forget(descriptor);  // whose number is used again is closed
  std::vector<Connection>& own = of_peer_[peer];
  if (own.size() >= static_cast<size_t>(most_of_one_)) {
    std::vector<int> closed;
    for (const Connection& connection : own) {
      if (CookieOf(connection.descriptor) != connection.cookie) {
        closed.push_back(connection.descriptor);
      }
    }
    if (closed.empty()) {
      return false;
    }
    std::for_each(closed.begin(), closed.end(), [this](int number) { Forget(number); });
  }
  of_peer_[peer].push_back({descriptor, CookieOf(descriptor)});
  peer_of_[descriptor] = peer;
  return true;
}

void PeerConnections::Forget(int descriptor) {
  const auto known = peer_of_.find(descriptor);
  if (known == peer_of_.end()) {
    return;
  }
  const auto peer = of_peer_.find(known->second);
  std::vector<Connection>& own = peer->second;
  own.erase(std::find_if(own.begin(), own.end(), [&](const Connection& c) { return c.descriptor == descriptor; }));
  if (own.empty()) {
    of_peer_.erase(peer);
  }
  peer_of_.erase(known);
}

}  // namespace hotlora
