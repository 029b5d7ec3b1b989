#ifndef HOTLORA_SRC_METRICS_ADAPTER_USAGE_H_
#define HOTLORA_SRC_METRICS_ADAPTER_USAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include "src/base/mutex.h"

namespace hotlora {

// hotlora_adapter_requests_total{adapter} and hotlora_adapter_last_used_timestamp_seconds{adapter}: the only metrics
// with adapters' names. At most kMaxNames names have a series. Requests with other adapters count as adapter="_other",
// requests without adapters as "_none". Adapters that have one of these two names count as "_other".
//
// An adapter without a label gets that of the least used one once it has been used more often. Its series then begins
// at 0 and the other's ends: no series ever goes down, as a counter must not. Memory grows by one entry for each
// adapter ever used. Thread-safe.
class AdapterUsage : public prometheus::Collectable {
 public:
  static constexpr size_t kMaxNames = 64;

  // A request with the adapters of these names, at that many seconds since 1970.
  void Count(const std::vector<std::string>& names, double now);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  struct Series {
    double requests = 0;
    double last_used = 0;
  };

  void CountOne(const std::string& name, double now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  absl::flat_hash_map<std::string, uint64_t> uses_ ABSL_GUARDED_BY(mu_);  // of every adapter since the start
  absl::flat_hash_map<std::string, Series> labelled_ ABSL_GUARDED_BY(mu_);
  Series none_ ABSL_GUARDED_BY(mu_);
  Series other_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_ADAPTER_USAGE_H_
