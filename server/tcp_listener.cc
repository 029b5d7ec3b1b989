#include "server/tcp_listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace hotlora {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<Addresses> Resolve(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) {
    return absl::InvalidArgumentError("it is HOST:PORT or [IPV6]:PORT");
  }
  absl::string_view host = absl::string_view(listen).substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) {
    absl::ConsumeSuffix(&host, "]");
  }
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(std::string(host).c_str(), listen.c_str() + colon + 1, &wanted, &found);
      error != 0) {
    return absl::InvalidArgumentError(gai_strerror(error));
  }
  return Addresses(found, &freeaddrinfo);
}

// -1 and errno if the address cannot be listened on.
int ListenOn(const addrinfo& address) {
  const int listener = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) {
    return -1;
  }
  const int on = 1;  // a former process's connections in TIME_WAIT do not keep the port
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const int off = 0;  // [::] is all addresses of IPv4 too
  setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  if (bind(listener, address.ai_addr, address.ai_addrlen) == 0 && listen(listener, SOMAXCONN) == 0) {
    return listener;
  }
  const int error = errno;
  close(listener);
  errno = error;
  return -1;
}

int PortOf(int listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

}  // namespace

absl::StatusOr<TcpListener> ListenTcp(const std::string& listen) {
  const auto addresses = Resolve(listen);
  if (!addresses.ok()) {
    return addresses.status();
  }
  for (const int family : {AF_INET, AF_INET6}) {
    for (const addrinfo* address = addresses->get(); address != nullptr; address = address->ai_next) {
      if (address->ai_family != family) {
        continue;
      }
      if (const int listener = ListenOn(*address); listener >= 0) {
        return TcpListener{listener, PortOf(listener)};
      }
    }
  }
  return absl::InvalidArgumentError(std::strerror(errno));
}

}  // namespace hotlora
