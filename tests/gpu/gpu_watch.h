#ifndef HOTLORA_TESTS_GPU_GPU_WATCH_H_
#define HOTLORA_TESTS_GPU_GPU_WATCH_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "src/base/periodic_thread.h"
#include "src/metrics/nvml.h"
#include "tests/gpu/probe.h"

namespace hotlora {

// Reads the GPU's clocks, power, temperature and reasons for throttling by NVML ten times a second. When it ends it
// adds them to the stage: the figures gpu.sm_clock, gpu.memory_clock, gpu.power and gpu.temperature, and the note
// throttle_reasons, the share of the readings that had each reason. On the CPU it does nothing.
class GpuWatch {
 public:
  // `probe` must outlive it.
  explicit GpuWatch(Probe& probe);
  ~GpuWatch();
  GpuWatch(const GpuWatch&) = delete;
  GpuWatch& operator=(const GpuWatch&) = delete;

 private:
  void Read();

  Probe& probe_;
  Nvml nvml_;
  NvmlDevice device_ = nullptr;
  std::vector<double> sm_clock_, memory_clock_, power_, temperature_;
  std::map<std::string, int> reasons_;
  int readings_ = 0;
  std::optional<PeriodicThread> thread_;  // last: it uses the others
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_GPU_WATCH_H_
