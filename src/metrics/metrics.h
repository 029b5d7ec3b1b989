#ifndef HOTLORA_SRC_METRICS_METRICS_H_
#define HOTLORA_SRC_METRICS_METRICS_H_

// Every figure that hotlora publishes, by what happened rather than by metric name. The only module that knows
// prometheus-cpp; names, labels and help texts are in metrics.cc. All known label
// sets stand at 0 from the start; adapters' names are a label of adapter_usage.h's alone. Thread-safe.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "src/base/memory_stats.h"
#include "src/image/rgb_image.h"
#include "src/metrics/call_metrics.h"
#include "src/metrics/step_shape.h"
#include "src/metrics/store_metrics.h"
#include "src/request/image_request.h"

namespace prometheus {
class Collectable;
}  // namespace prometheus

namespace hotlora {

// Figures that others hold and a scrape reads. The functions are called on the metrics endpoint's threads.
struct GaugeSources {
  std::string device;  // label of the memory gauges: "cpu" or "cuda:N"
  std::function<MemoryStats()> device_memory;
  std::function<uint32_t()> queue_depth;
  uint32_t queue_capacity = 0;
  uint32_t batch_capacity = 0;  // rows
  std::string adapters_folder;  // whose disk's free space is told; empty: none
};

enum class RequestPhase { kQueue, kAdapter, kEncode, kDenoise, kDecode, kImageEncode };
enum class SwapPhase { kLookup, kRead, kParse, kUpload, kApply, kRestore, kTotal };
enum class StartUpPhase { kLoad, kWarmUp };
enum class VaeWork { kDecode, kEncode };

// Why a request that is ready waits though a step is about to run: another image size, adapters that cannot share the
// step, no row left, no memory for one row more.
enum class RegroupReason { kSize, kAdapters, kFull, kMemory };

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  CallMetrics& calls();

  // The stores of adapters, and of ControlNets and image prompts.
  StoreMetrics& adapters();
  StoreMetrics& controls();

  // What an exposer scrapes.
  std::vector<std::shared_ptr<prometheus::Collectable>> collectables() const;

  // The same as Prometheus text, for tests and logs.
  std::string Render() const;

  // Once, before the first scrape that should show them. Clear with {} before what the functions read is gone.
  void SetSources(GaugeSources sources);
  void SetBuildInfo(absl::string_view version, absl::string_view libtorch);
  void SetModelInfo(absl::string_view model, absl::string_view sha256, absl::string_view dtype,
                    absl::string_view device);

  // Whether files of the model differ from what was read.
  void SetModelFilesChanged(bool changed);

  // When the TLS certificate in use ends; nullopt if that cannot be told. Without it there is no such figure.
  void SetCertificateEnd(std::function<std::optional<absl::Time>()> end);
  void SetStartUp(StartUpPhase phase, double seconds);

  // --- steps
  void BeatScheduler();                                          // the step thread is alive; each step counts as well
  void ObserveStep(const StepShape& shape, double seconds);      // also the drift ratio and baselines, step_drift.h
  void SetStepBaseline(const StepShape& shape, double seconds);  // what warm-up measured
  void CountRegroup(RegroupReason reason);                       // once for each request and reason

  // A picture was begun band by band, because the whole would not fit.
  void CountTiledVae(VaeWork work);

  // What could be allocated when nothing ran last, and the most that one call of the networks was taken to need.
  void SetWorkMemory(int64_t available_bytes, int64_t needed_bytes);

  // --- requests. `code` as in "INVALID_ARGUMENT", "OK"; outcome: ok, error or cancelled.
  void CountRequest(absl::string_view method, absl::string_view code, double seconds);
  void ObservePhase(RequestPhase phase, double seconds);
  void ObserveQueueWait(double seconds);
  void CountImage(ImageFormat format);
  void CountConditioning(bool kept);  // a request's encoded prompts: kept from an earlier one, or encoded
  // When the oldest waiting request came (the epoch if none waits), and how long a new request would wait.
  void SetWaiting(absl::Time oldest, double newcomer_seconds);

  // --- adapters
  void ObserveSwapPhase(SwapPhase phase, AdapterTier source, double seconds);
  void CountSwap(bool ok);
  void CountBaseRestoreMismatch();
  // What the adapter thread does: for how long it has been at its present job (0: at none), and how many wait.
  void SetAdapterJobs(double age_seconds, uint64_t waiting);

 private:
  struct Families;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_METRICS_H_
