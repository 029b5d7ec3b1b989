// Linked into hotlora-faulty-server alone: the real server, whose swaps do what a soak must find. The linker puts this
// in the place of Metrics::CountSwap (--wrap), which every swap calls on the step thread, so the server itself has no
// switch.
//
//   FAULT_LEAK_TENSOR_BYTES=4096   each swap leaks a tensor of that size
//   FAULT_LEAK_HEAP_BYTES=4096     each swap leaks plain memory
//   FAULT_SLOW_NANOSECONDS=50      each swap takes so much longer than the one before

#include <cstdlib>
#include <cstring>
#include <vector>

#include "absl/time/clock.h"
#include <ATen/ATen.h>

#include "src/metrics/metrics.h"

namespace {

int64_t Setting(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? 0 : std::atoll(value);
}

}  // namespace

extern "C" void __real__ZN7hotlora7Metrics9CountSwapEb(hotlora::Metrics* metrics, bool ok);

extern "C" void __wrap__ZN7hotlora7Metrics9CountSwapEb(hotlora::Metrics* metrics, bool ok) {
  static const int64_t tensor_bytes = Setting("FAULT_LEAK_TENSOR_BYTES");
  static const int64_t heap_bytes = Setting("FAULT_LEAK_HEAP_BYTES");
  static const int64_t slow_nanoseconds = Setting("FAULT_SLOW_NANOSECONDS");
  static auto* const tensors = new std::vector<at::Tensor>;
  static auto* const blocks = new std::vector<void*>;
  static int64_t swaps = 0;
  ++swaps;
  if (tensor_bytes > 0) {
    tensors->push_back(at::empty({tensor_bytes}, at::kByte));
  }
  if (heap_bytes > 0) {
    blocks->push_back(std::memset(std::malloc(heap_bytes), 1, heap_bytes));
  }
  if (slow_nanoseconds > 0) {
    absl::SleepFor(absl::Nanoseconds(slow_nanoseconds * swaps));
  }
  __real__ZN7hotlora7Metrics9CountSwapEb(metrics, ok);
}
