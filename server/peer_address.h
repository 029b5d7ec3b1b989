#ifndef HOTLORA_SERVER_PEER_ADDRESS_H_
#define HOTLORA_SERVER_PEER_ADDRESS_H_

// Who is at the other end: the connection's peer, or, if that is a trusted proxy, the one that the proxy names.

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hotlora {

// An address of IPv4 or IPv6. An IPv4-mapped address of IPv6 is the IPv4 address.
class IpAddress {
 public:
  // Takes blanks around the address, a port behind it, brackets around an address of IPv6, and a zone, which is
  // dropped. Nullopt if `text` is anything else.
  static std::optional<IpAddress> Parse(absl::string_view text);
  // Nullopt if it is of another family.
  static std::optional<IpAddress> Of(const sockaddr_storage& address);

  bool is_ipv4() const;
  bool is_loopback() const;
  std::string ToString() const;  // "ipv4:192.0.2.1", "ipv6:[2001:db8::1]"
  // What counts as one peer: an address of IPv4, or the /64 of an address of IPv6, which is what one household or
  // machine gets. "ipv4:192.0.2.1", "ipv6:[2001:db8::]/64".
  std::string Network() const;

 private:
  friend class TrustedProxies;
  std::array<uint8_t, 16> bytes_{};  // IPv4-mapped for IPv4
};

struct Peer {
  std::string name;        // for logs: as gRPC names the connection ("ipv4:192.0.2.1:50000"), or IpAddress::ToString
  std::string network;     // for limits: IpAddress::Network; `name` if the peer has no IP address
  bool forwarded = false;  // the connection is a trusted proxy's
};

// The proxies whose x-forwarded-for is believed (--trusted-proxy). Immutable, so thread-safe.
class TrustedProxies {
 public:
  // Each is ADDRESS or ADDRESS/BITS. InvalidArgument says what is wrong with one.
  static absl::StatusOr<TrustedProxies> Parse(const std::vector<std::string>& networks);

  bool Contains(const IpAddress& address) const;

  // `connection`: gRPC's name of the connection's peer. `forwarded`: the values of the x-forwarded-for headers in their
  // order; each proxy appends to the last one the address that it was called from. From a trusted proxy the peer is the
  // right-most address that is not a trusted proxy too, or the left-most one if all are. What stands to the left of it
  // may be the caller's own invention. Without an entry, or if an entry is not an address: the
  // connection's peer.
  Peer PeerOf(absl::string_view connection, const std::vector<absl::string_view>& forwarded) const;

 private:
  struct Network {
    IpAddress address;
    int bits = 128;  // of bytes_
    bool Contains(const IpAddress& other) const;
  };
  std::vector<Network> networks_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_PEER_ADDRESS_H_
