#ifndef HOTLORA_TESTS_SERVER_LOOPBACK_CONNECTION_H_
#define HOTLORA_TESTS_SERVER_LOOPBACK_CONNECTION_H_

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cstdint>

#include <gtest/gtest.h>

namespace hotlora {

// A TCP connection to a port of this machine, on which reading gives up after `patience_seconds`. The caller closes it.
inline int ConnectToLoopback(int port, int patience_seconds, bool ipv6 = false) {
  const int connection = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{patience_seconds, 0};
  setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(static_cast<uint16_t>(port));
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = v4.sin_port;
  v6.sin6_addr = in6addr_loopback;
  EXPECT_EQ(ipv6 ? connect(connection, reinterpret_cast<sockaddr*>(&v6), sizeof(v6))
                 : connect(connection, reinterpret_cast<sockaddr*>(&v4), sizeof(v4)),
            0);
  return connection;
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_SERVER_LOOPBACK_CONNECTION_H_
