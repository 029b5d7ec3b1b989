#ifndef HOTLORA_SERVER_METRICS_ENDPOINT_H_
#define HOTLORA_SERVER_METRICS_ENDPOINT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "src/metrics/metrics.h"

struct mg_context;

namespace hotlora {

// What HTTP asks, on threads of its own, until it is destroyed:
//   GET /metrics     the figures as Prometheus text
//   GET /-/ready     200 while requests are accepted, else 503: for load balancers that cannot speak gRPC's health
//   protocol GET /-/healthy   200 as long as the process answers
class MetricsEndpoint {
 public:
  // `listen`: HOST:PORT, port 0 for any free one. `metrics`, and what the thread-safe `is_ready` looks at, outlive it.
  // InvalidArgument where it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& listen, const Metrics& metrics,
                                                                std::function<bool()> is_ready);
  ~MetricsEndpoint();

  int port() const { return port_; }

 private:
  MetricsEndpoint(const Metrics& metrics, std::function<bool()> is_ready);

  const Metrics& metrics_;
  const std::function<bool()> is_ready_;
  mg_context* server_ = nullptr;
  int port_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_METRICS_ENDPOINT_H_
