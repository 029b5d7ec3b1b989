#ifndef HOTLORA_SERVER_METRICS_ENDPOINT_H_
#define HOTLORA_SERVER_METRICS_ENDPOINT_H_

#include <functional>
#include <list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "src/metrics/metrics.h"

struct MHD_Connection;
struct MHD_Daemon;

namespace hotlora {

// Answers HTTP on one thread of its own, until it is destroyed:
//   GET /metrics     the figures as Prometheus text
//   GET /-/ready     200 while requests are accepted, else 503 and why not, for balancers that do not speak gRPC's
//                    health protocol
//   GET /-/healthy   200 as long as the process answers
//
// No connection delays another one: the thread waits for all of them at once. A connection on which nothing moves for
// 5 s is closed. At most kMaxConnections, or an eighth of the limit of open files, stay open; a further one closes the
// oldest.
class MetricsEndpoint {
 public:
  static constexpr size_t kMaxConnections = 256;

  // `listen`: HOST:PORT or [IPV6]:PORT, port 0 for any free one. `why_not_ready` is as Readiness::WhyNot. `metrics`,
  // and what the thread-safe `why_not_ready` looks at, outlive it. InvalidArgument if the address cannot be listened
  // on.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& listen, const Metrics& metrics,
                                                                std::function<std::string()> why_not_ready);
  ~MetricsEndpoint();

  int port() const { return port_; }

 private:
  friend struct MetricsEndpointCallbacks;

  MetricsEndpoint(const Metrics& metrics, std::function<std::string()> why_not_ready);

  const Metrics& metrics_;
  const std::function<std::string()> why_not_ready_;
  const size_t max_connections_;
  std::list<MHD_Connection*> connections_;  // in the order in which they came; of the endpoint's thread alone
  MHD_Daemon* server_ = nullptr;
  int port_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_METRICS_ENDPOINT_H_
