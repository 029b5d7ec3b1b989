#include "server/peer_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace hotlora {
namespace {

constexpr uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr int kIpv4Bits = 32;
constexpr int kIpv6Bits = 128;
constexpr size_t kNetworkBytes = 8;  // of an address of IPv6
constexpr size_t kMaxTextBytes = 100;

bool IsPort(absl::string_view text) {
  uint32_t port;
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit) && absl::SimpleAtoi(text, &port) &&
         port <= 65535;
}

// The address alone; empty if `text` has no such form.
absl::string_view WithoutPort(absl::string_view text) {
  if (absl::ConsumePrefix(&text, "[")) {
    const size_t end = text.find(']');
    const absl::string_view rest = end == absl::string_view::npos ? "?" : text.substr(end + 1);
    const bool is_ipv6 = text.substr(0, end).find(':') != absl::string_view::npos;
    return is_ipv6 && (rest.empty() || (rest[0] == ':' && IsPort(rest.substr(1)))) ? text.substr(0, end) : "";
  }
  const size_t colon = text.find(':');
  if (colon == absl::string_view::npos || text.find(':', colon + 1) != absl::string_view::npos) {
    return text;  // IPv4 without a port, or IPv6, which has a port behind brackets only
  }
  return IsPort(text.substr(colon + 1)) ? text.substr(0, colon) : "";
}

// The address in gRPC's name of a peer, "ipv4:192.0.2.1:50000" or "ipv6:%5B2001:db8::1%5D:50000".
std::optional<IpAddress> AddressOfConnection(absl::string_view connection) {
  if (!absl::ConsumePrefix(&connection, "ipv4:") && !absl::ConsumePrefix(&connection, "ipv6:")) {
    return std::nullopt;
  }
  return IpAddress::Parse(absl::StrReplaceAll(connection, {{"%5B", "["}, {"%5D", "]"}, {"%25", "%"}}));
}

}  // namespace

std::optional<IpAddress> IpAddress::Parse(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  if (text.size() > kMaxTextBytes || text.find('\0') != absl::string_view::npos) {
    return std::nullopt;
  }
  text = WithoutPort(text);
  IpAddress address;
  in_addr ipv4{};
  if (inet_pton(AF_INET, std::string(text).c_str(), &ipv4) == 1) {
    std::copy(std::begin(kMappedPrefix), std::end(kMappedPrefix), address.bytes_.begin());
    std::memcpy(address.bytes_.data() + sizeof(kMappedPrefix), &ipv4, sizeof(ipv4));
    return address;
  }
  const std::string ipv6(text.substr(0, text.find('%')));
  return inet_pton(AF_INET6, ipv6.c_str(), address.bytes_.data()) == 1 ? std::optional(address) : std::nullopt;
}

std::optional<IpAddress> IpAddress::Of(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text, sizeof(text));
  } else if (address.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text, sizeof(text));
  }
  return Parse(text);
}

bool IpAddress::is_ipv4() const {
  return std::equal(std::begin(kMappedPrefix), std::end(kMappedPrefix), bytes_.begin());
}

bool IpAddress::is_loopback() const {
  in6_addr address{};
  std::copy(bytes_.begin(), bytes_.end(), address.s6_addr);
  return is_ipv4() ? bytes_[sizeof(kMappedPrefix)] == 127 : IN6_IS_ADDR_LOOPBACK(&address);
}

std::string IpAddress::ToString() const {
  char text[INET6_ADDRSTRLEN];
  if (is_ipv4()) {
    inet_ntop(AF_INET, bytes_.data() + sizeof(kMappedPrefix), text, sizeof(text));
    return absl::StrCat("ipv4:", text);
  }
  inet_ntop(AF_INET6, bytes_.data(), text, sizeof(text));
  return absl::StrCat("ipv6:[", text, "]");
}

std::string IpAddress::Network() const {
  if (is_ipv4()) {
    return ToString();
  }
  IpAddress network = *this;
  std::fill(network.bytes_.begin() + kNetworkBytes, network.bytes_.end(), 0);
  return absl::StrCat(network.ToString(), "/64");
}

absl::StatusOr<TrustedProxies> TrustedProxies::Parse(const std::vector<std::string>& networks) {
  TrustedProxies proxies;
  for (const std::string& text : networks) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits('/', 1));
    const std::optional<IpAddress> address = IpAddress::Parse(parts.first);
    const bool is_ipv4_text = parts.first.find(':') == absl::string_view::npos;
    const int most = is_ipv4_text ? kIpv4Bits : kIpv6Bits;
    int bits = most;
    const bool has_bits = parts.first.size() < text.size();
    if (!address.has_value() || (has_bits && (!IsPort(parts.second) || !absl::SimpleAtoi(parts.second, &bits))) ||
        bits > most) {
      return absl::InvalidArgumentError(absl::StrCat("is \"", text, "\"; it is an IP address, or one with /0 to /",
                                                     kIpv4Bits, " (IPv6: /", kIpv6Bits, ") behind it"));
    }
    proxies.networks_.push_back({*address, bits + kIpv6Bits - most});
  }
  return proxies;
}

bool TrustedProxies::Network::Contains(const IpAddress& other) const {
  constexpr int kMappedBits = kIpv6Bits - kIpv4Bits;
  if (other.is_ipv4() != (address.is_ipv4() && bits >= kMappedBits)) {
    return false;  // a network of IPv6 holds no address of IPv4, ::/0 neither
  }
  const auto whole = static_cast<size_t>(bits / 8);
  const auto mask = static_cast<uint8_t>(0xff00 >> (bits % 8));
  return std::equal(other.bytes_.begin(), other.bytes_.begin() + static_cast<long>(whole), address.bytes_.begin()) &&
         (whole == other.bytes_.size() || ((other.bytes_[whole] ^ address.bytes_[whole]) & mask) == 0);
}

bool TrustedProxies::Contains(const IpAddress& address) const {
  return std::any_of(networks_.begin(), networks_.end(),
                     [&](const Network& network) { return network.Contains(address); });
}

Peer TrustedProxies::PeerOf(absl::string_view connection, const std::vector<absl::string_view>& forwarded) const {
  const std::optional<IpAddress> direct = AddressOfConnection(connection);
  Peer peer{std::string(connection), direct.has_value() ? direct->Network() : std::string(connection), false};
  if (!direct.has_value() || !Contains(*direct)) {
    return peer;
  }
  peer.forwarded = true;
  std::optional<IpAddress> named;
  for (auto header = forwarded.rbegin(); header != forwarded.rend(); ++header) {
    const std::vector<absl::string_view> entries = absl::StrSplit(*header, ',');
    for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
      named = IpAddress::Parse(*entry);
      if (!named.has_value()) {
        return peer;
      }
      if (!Contains(*named)) {
        return {named->ToString(), named->Network(), true};
      }
    }
  }
  return named.has_value() ? Peer{named->ToString(), named->Network(), true} : peer;
}

}  // namespace hotlora
