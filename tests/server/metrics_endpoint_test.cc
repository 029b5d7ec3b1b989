#include "server/metrics_endpoint.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

std::string Get(int port, const std::string& path) {
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string request = absl::StrCat("GET ", path, " HTTP/1.0\r\n\r\n");
  EXPECT_EQ(write(connection, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t got; (got = read(connection, buffer, sizeof(buffer))) > 0;) {
    answer.append(buffer, static_cast<size_t>(got));
  }
  close(connection);
  return answer;
}

TEST(MetricsEndpointTest, ServesWhatMetricsCounted) {
  Metrics metrics;
  const auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", metrics, [] { return true; });
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  metrics.CountRequest("GenerateImages", "OK", 1.0);
  const std::string answer = Get((*endpoint)->port(), "/metrics");
  EXPECT_NE(answer.find("200 OK"), std::string::npos);
  EXPECT_NE(answer.find("hotlora_requests_total{"), std::string::npos);
  EXPECT_EQ(Get((*endpoint)->port(), "/other").find("200 OK"), std::string::npos);
}

TEST(MetricsEndpointTest, SaysWhetherRequestsAreAccepted) {
  Metrics metrics;
  std::atomic<bool> ready = false;
  const auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", metrics, [&ready] { return ready.load(); });
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  EXPECT_EQ(Get((*endpoint)->port(), "/-/ready").find("HTTP/1.1 503"), 0u);
  EXPECT_EQ(Get((*endpoint)->port(), "/-/healthy").find("HTTP/1.1 200 OK"), 0u);
  ready = true;
  EXPECT_EQ(Get((*endpoint)->port(), "/-/ready").find("HTTP/1.1 200 OK"), 0u);
}

TEST(MetricsEndpointTest, TakenPortIsAnErrorThatNamesTheFlag) {
  Metrics metrics;
  const auto first = MetricsEndpoint::Start("127.0.0.1:0", metrics, [] { return true; });
  ASSERT_TRUE(first.ok());
  const auto second =
      MetricsEndpoint::Start(absl::StrCat("127.0.0.1:", (*first)->port()), metrics, [] { return true; });
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().message().find("--metrics-listen 127.0.0.1:"), 0u);
}

}  // namespace
}  // namespace hotlora
