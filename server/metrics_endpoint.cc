#include "server/metrics_endpoint.h"

#include <exception>

#include "absl/strings/str_cat.h"
#include <prometheus/exposer.h>

namespace hotlora {

MetricsEndpoint::MetricsEndpoint() = default;
MetricsEndpoint::~MetricsEndpoint() = default;

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(const std::string& listen,
                                                                        const Metrics& metrics) {
  std::unique_ptr<MetricsEndpoint> endpoint(new MetricsEndpoint);
  try {
    endpoint->exposer_ = std::make_unique<prometheus::Exposer>(listen);
    for (const auto& collectable : metrics.collectables()) {
      endpoint->exposer_->RegisterCollectable(collectable);
    }
    endpoint->port_ = endpoint->exposer_->GetListeningPorts().at(0);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics-listen ", listen, ": cannot listen there (", error.what(), ")"));
  }
  return endpoint;
}

}  // namespace hotlora
