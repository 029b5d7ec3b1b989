#ifndef HOTLORA_SERVER_TCP_LISTENER_H_
#define HOTLORA_SERVER_TCP_LISTENER_H_

#include <string>

#include "absl/status/statusor.h"

namespace hotlora {

struct TcpListener {
  int socket = -1;  // listens, does not block, is closed on exec; the caller closes it
  int port = 0;
};

// `listen`: HOST:PORT or [IPV6]:PORT, port 0 for any free one. HOST is an address or a name; of a name's addresses the
// first one that works is taken, IPv4 before IPv6. [::] is all addresses of IPv4 too. InvalidArgument says why if none
// works.
absl::StatusOr<TcpListener> ListenTcp(const std::string& listen);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_TCP_LISTENER_H_
