#include "server/metrics_endpoint.h"

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <gtest/gtest.h>

#include "tests/server/loopback_connection.h"

namespace hotlora {
namespace {

int Connect(int port, bool ipv6 = false) { return ConnectToLoopback(port, 10, ipv6); }

void Send(int connection, const std::string& text) {
  EXPECT_EQ(send(connection, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

TEST(MetricsEndpointTest, ServesWhatMetricsCounted) {
  Metrics metrics;
  const auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", metrics, [] { return ""; });
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  metrics.CountRequest("GenerateImages", "OK", 1.0);
  const std::string answer = GetHttp((*endpoint)->port(), "/metrics");
  EXPECT_NE(answer.find("200 OK"), std::string::npos);
  EXPECT_NE(answer.find("hotlora_requests_total{"), std::string::npos);
  EXPECT_EQ(GetHttp((*endpoint)->port(), "/other").find("200 OK"), std::string::npos);
}

TEST(MetricsEndpointTest, SaysWhetherRequestsAreAccepted) {
  Metrics metrics;
  std::atomic<bool> ready = false;
  const auto endpoint =
      MetricsEndpoint::Start("127.0.0.1:0", metrics, [&ready] { return ready ? "" : "starting, listener_deaf"; });
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  const std::string answer = GetHttp((*endpoint)->port(), "/-/ready");
  EXPECT_EQ(answer.find("HTTP/1.1 503"), 0u);
  EXPECT_NE(answer.find("\r\n\r\nnot ready: starting, listener_deaf\n"), std::string::npos);
  EXPECT_EQ(GetHttp((*endpoint)->port(), "/-/healthy").find("HTTP/1.1 200 OK"), 0u);
  ready = true;
  EXPECT_EQ(GetHttp((*endpoint)->port(), "/-/ready").find("HTTP/1.1 200 OK"), 0u);
}

TEST(MetricsEndpointTest, RefusesOtherMethodsAndPaths) {
  Metrics metrics;
  const auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", metrics, [] { return ""; });
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  const std::pair<const char*, const char*> cases[] = {
      {"GET /metrics?name=x HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK"},
      {"HEAD /metrics HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK"},
      {"GET /metrics/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 404 Not Found"},
      {"POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 405 Method Not Allowed"},
      {"DELETE /-/ready HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"},
  };
  for (const auto& [request, status] : cases) {
    const int connection = Connect((*endpoint)->port());
    Send(connection, request);
    char start[64] = "";
    EXPECT_GT(recv(connection, start, sizeof(start) - 1, MSG_WAITALL), 0) << request;
    EXPECT_EQ(std::string(start).substr(0, std::strlen(status)), status) << request;
    close(connection);
  }
}

// What a connection says before it falls silent.
class IdleConnectionsTest : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(IdleConnectionsTest, FiveHundredDelayNoOther) {
  constexpr int kIdle = 500;
  rlimit files{};  // both ends of each connection are open in this process
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  Metrics metrics;
  const auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", metrics, [] { return ""; });
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  std::vector<int> idle;
  for (int i = 0; i < kIdle; ++i) {
    idle.push_back(Connect((*endpoint)->port()));
    const std::string opening = GetParam().second;
    // What is over the limit of connections may be closed already.
    send(idle.back(), opening.data(), opening.size(), MSG_NOSIGNAL);
    if (i % 50 == 49) {
      for (const char* path : {"/metrics", "/-/ready", "/-/healthy"}) {
        const absl::Time start = absl::Now();
        EXPECT_EQ(GetHttp((*endpoint)->port(), path).find("HTTP/1.1 200 OK"), 0u) << path << " beside " << i + 1;
        EXPECT_LT(absl::Now() - start, absl::Seconds(1)) << path << " beside " << i + 1;
      }
    }
  }
  for (const int connection : idle) {
    close(connection);
  }
}

INSTANTIATE_TEST_SUITE_P(, IdleConnectionsTest,
                         ::testing::Values(std::pair("Silent", ""), std::pair("HalfALine", "GET /met"),
                                           std::pair("HalfARequest", "GET /metrics HTTP/1.1\r\nHost: x\r\n"),
                                           std::pair("ReadsNothing", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
                                           std::pair("HalfABody", "POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\na")),
                         [](const auto& tested) { return tested.param.first; });

TEST(MetricsEndpointTest, ListensOnIpv6) {
  const int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  const bool has_ipv6 = bind(probe, reinterpret_cast<sockaddr*>(&loopback), sizeof(loopback)) == 0;
  close(probe);
  if (!has_ipv6) {
    GTEST_SKIP() << "this machine has no ::1";
  }
  Metrics metrics;
  const auto endpoint = MetricsEndpoint::Start("[::1]:0", metrics, [] { return ""; });
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  EXPECT_EQ(GetHttp((*endpoint)->port(), "/-/healthy", /*ipv6=*/true).find("HTTP/1.1 200 OK"), 0u);
}

TEST(MetricsEndpointTest, ListensOnANameAndNamesWhatItCannot) {
  Metrics metrics;
  EXPECT_TRUE(MetricsEndpoint::Start("localhost:0", metrics, [] { return ""; }).ok());
  const auto wrong = MetricsEndpoint::Start("[::zz]:0", metrics, [] { return ""; });
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.status().message().find("--metrics-listen [::zz]:0: cannot listen there: "), 0u) << wrong.status();
}

TEST(MetricsEndpointTest, TakenPortIsAnErrorThatNamesTheFlag) {
  Metrics metrics;
  const auto first = MetricsEndpoint::Start("127.0.0.1:0", metrics, [] { return ""; });
  ASSERT_TRUE(first.ok());
  const auto second = MetricsEndpoint::Start(absl::StrCat("127.0.0.1:", (*first)->port()), metrics, [] { return ""; });
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().message().find("--metrics-listen 127.0.0.1:"), 0u);
}

}  // namespace
}  // namespace hotlora
