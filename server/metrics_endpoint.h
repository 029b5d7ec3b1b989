#ifndef HOTLORA_SERVER_METRICS_ENDPOINT_H_
#define HOTLORA_SERVER_METRICS_ENDPOINT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "src/metrics/metrics.h"

namespace prometheus {
class Exposer;
}  // namespace prometheus

namespace hotlora {

// GET /metrics over HTTP, on threads of its own, until it is destroyed. `metrics` outlives it.
class MetricsEndpoint {
 public:
  // `listen`: HOST:PORT, port 0 for any free one. InvalidArgument where it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& listen, const Metrics& metrics);
  ~MetricsEndpoint();

  int port() const { return port_; }

 private:
  MetricsEndpoint();

  std::unique_ptr<prometheus::Exposer> exposer_;
  int port_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_METRICS_ENDPOINT_H_
