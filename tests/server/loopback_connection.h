#ifndef HOTLORA_TESTS_SERVER_LOOPBACK_CONNECTION_H_
#define HOTLORA_TESTS_SERVER_LOOPBACK_CONNECTION_H_

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdint>
#include <string>

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

// The whole answer to a GET over HTTP.
inline std::string GetHttp(int port, const std::string& path, bool ipv6 = false) {
  const int connection = ConnectToLoopback(port, 10, ipv6);
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  EXPECT_EQ(send(connection, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t got; (got = read(connection, buffer, sizeof(buffer))) > 0;) {
    answer.append(buffer, static_cast<size_t>(got));
  }
  close(connection);
  return answer;
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_SERVER_LOOPBACK_CONNECTION_H_
