#ifndef HOTLORA_SRC_METRICS_COLLECTORS_H_
#define HOTLORA_SRC_METRICS_COLLECTORS_H_

// Figures that are read when Prometheus scrapes, not counted as things happen.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include "src/base/mutex.h"
#include "src/base/periodic_thread.h"
#include "src/metrics/metrics.h"

namespace hotlora {

// process_* with the standard names of Prometheus' client libraries, from /proc/self.
std::shared_ptr<prometheus::Collectable> MakeProcessCollector();

// hotlora_gpu_* of every GPU that NVML (libnvidia-ml.so.1, by dlopen) knows, and hotlora_nvml_up: 0 if the library
// is missing or fails, and then no gpu figures. `reserved_bytes` tells what LibTorch's allocator holds on the GPUs;
// unaccounted is what this process uses beyond it (context, cuBLAS and cuDNN workspaces).
std::shared_ptr<prometheus::Collectable> MakeNvmlCollector(std::function<int64_t()> reserved_bytes);

// What GaugeSources tell: hotlora_device_memory_*, hotlora_queue_{depth,capacity}, hotlora_batch_capacity_rows and
// hotlora_disk_free_bytes, nothing of that before Set. Besides how many log lines were written, and when the TLS
// certificate ends.
class SourcesCollector : public prometheus::Collectable {
 public:
  void Set(GaugeSources sources);
  void SetCertificateEnd(std::function<std::optional<absl::Time>()> end);

  // What the allocator holds on a GPU; 0 if the device is none.
  int64_t GpuReservedBytes() const;

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  void LookAtDisk(const std::string& folder);

  mutable Mutex mu_;
  GaugeSources sources_ ABSL_GUARDED_BY(mu_);
  std::optional<double> disk_free_bytes_ ABSL_GUARDED_BY(mu_);
  std::function<std::optional<absl::Time>()> certificate_end_ ABSL_GUARDED_BY(mu_);

  // A network disk that hangs must not hold up a scrape.
  std::optional<PeriodicThread> disk_watch_;  // last: it uses the others
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_COLLECTORS_H_
