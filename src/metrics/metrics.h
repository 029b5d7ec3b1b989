#ifndef HOTLORA_SRC_METRICS_METRICS_H_
#define HOTLORA_SRC_METRICS_METRICS_H_

// Every figure that hotlora publishes, by what happened rather than by metric name. The only module that knows
// prometheus-cpp (with server/metrics_endpoint.cc); names, labels and help texts are in metrics.cc. All known label
// sets stand at 0 from the start; adapter names are never a label. Thread-safe.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace prometheus {
class Collectable;
}  // namespace prometheus

namespace hotlora {

struct DeviceMemory {
  int64_t allocated_bytes = 0;
  int64_t reserved_bytes = 0;
  double fragmentation_ratio = 0.0;
};

// Figures that others hold and a scrape reads. The functions are called on the exposer's threads.
struct GaugeSources {
  std::string device;  // label of the memory gauges: "cpu" or "cuda:N"
  std::function<DeviceMemory()> device_memory;
  std::function<uint32_t()> queue_depth;
  uint32_t queue_capacity = 0;
};

enum class StageLabel { kQueue, kAdapter, kEncode, kDenoise, kDecode, kImageEncode };
enum class SwapPhase { kLookup, kRead, kParse, kUpload, kApply, kRestore, kTotal };
enum class TierLabel { kDisk, kHost, kDevice };
enum class EvictionReason { kCapacity, kExplicit, kReplaced };

// A denoising step's size and guidance, as labels.
struct StepShape {
  uint32_t width = 0, height = 0, rows = 0;
  bool cfg = false;
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // What an exposer scrapes.
  std::vector<std::shared_ptr<prometheus::Collectable>> collectables() const;

  // The same as Prometheus text, for tests and logs.
  std::string Render() const;

  // Once, before the first scrape that should show them. Clear with {} before what the functions read is gone.
  void SetSources(GaugeSources sources);
  void SetBuildInfo(absl::string_view version, absl::string_view libtorch);
  void SetModelInfo(absl::string_view model, absl::string_view sha256, absl::string_view dtype,
                    absl::string_view device);

  // --- steps
  void ObserveStep(const StepShape& shape, double seconds);  // also the drift ratio, once its baseline is known
  void SetStepBaseline(const StepShape& shape, double seconds);

  // --- requests. `code` as in "INVALID_ARGUMENT", "OK"; outcome: ok, error or cancelled.
  void CountRequest(absl::string_view method, absl::string_view code, double seconds);
  void ObserveStage(StageLabel stage, double seconds);
  void ObserveQueueWait(double seconds);
  void CountImage(absl::string_view format);

  // --- adapters
  void ObserveSwapPhase(SwapPhase phase, TierLabel source, double seconds);
  void CountSwap(bool ok);
  void CountCacheRequest(TierLabel tier, bool hit);
  void CountEviction(TierLabel tier, EvictionReason reason);
  void SetCache(TierLabel tier, uint64_t bytes, uint64_t capacity_bytes, uint64_t entries);
  void AddAdapterRefs(int change);
  void CountBaseRestoreMismatch();

 private:
  struct Families;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_METRICS_H_
