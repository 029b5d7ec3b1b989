#include "src/tensor/allocation_peak.h"

#include <atomic>

#include <c10/core/Allocator.h>

namespace hotlora {

// What LibTorch's memory profiler is told: the one place where both kinds of allocators name the thread.
class AllocationPeak::Reports final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* data, int64_t bytes, size_t allocated, size_t reserved, c10::Device device) override {
    const int64_t held = held_.fetch_add(bytes) + bytes;
    for (int64_t peak = peak_; peak < held && !peak_.compare_exchange_weak(peak, held);) {
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t peak() const { return peak_; }

 private:
  std::atomic<int64_t> held_ = 0, peak_ = 0;  // threads of a parallel loop report too
};

AllocationPeak::AllocationPeak()
    : reports_(std::make_shared<Reports>()), guard_(c10::DebugInfoKind::PROFILER_STATE, reports_) {}

int64_t AllocationPeak::bytes() const { return reports_->peak(); }

}  // namespace hotlora
