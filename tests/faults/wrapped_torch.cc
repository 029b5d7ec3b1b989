// What our own libraries ask of LibTorch, and what a swap does: see wrapped_calls.cc.

#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/time/clock.h"
#include "absl/types/span.h"
#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include "src/metrics/metrics.h"
#include "src/nn/conv2d.h"
#include "src/nn/linear.h"
#include "src/nn/weight_merge.h"
#include "tests/faults/fault_points.h"

namespace {

at::Tensor Passed(bool nan, at::Tensor result) {
  return nan ? at::full_like(result, std::numeric_limits<double>::quiet_NaN()) : result;
}

}  // namespace

// --- tensors: c10::alloc_cpu, from which the counting allocator has its memory

extern "C" void* __real__ZN3c109alloc_cpuEm(size_t bytes);
extern "C" void* __wrap__ZN3c109alloc_cpuEm(size_t bytes) {
  using hotlora::faults::Kind;
  TORCH_CHECK(hotlora::faults::Pass(Kind::kTensor) == hotlora::faults::kNothing, "a fault of tests/faults");
  return __real__ZN3c109alloc_cpuEm(bytes);
}

// --- kernels: the layers that all networks are made of, and the merge of one module

#define LINEAR _ZNK7hotlora6Linear7forwardERKN2at6TensorEN4absl7debian34SpanIKNS_8SideRowsEEE
#define CONV _ZNK7hotlora6Conv2d7forwardERKN2at6TensorEN4absl7debian34SpanIKNS_8SideRowsEEE
#define MERGE _ZN7hotlora11MergeWeightERN2at6TensorERKS1_N4absl7debian34SpanIKNS_13WeightedDeltaEEENS_13DoraWeightingE
#define JOIN(a, b) a##b
#define REAL(name) JOIN(__real_, name)
#define WRAP(name) JOIN(__wrap_, name)

extern "C" at::Tensor REAL(LINEAR)(const hotlora::Linear* self, const at::Tensor& x, hotlora::SideBranch side);
extern "C" at::Tensor WRAP(LINEAR)(const hotlora::Linear* self, const at::Tensor& x, hotlora::SideBranch side) {
  const bool nan = hotlora::faults::PassKernel();
  return Passed(nan, REAL(LINEAR)(self, x, side));
}

extern "C" at::Tensor REAL(CONV)(const hotlora::Conv2d* self, const at::Tensor& x, hotlora::SideBranch side);
extern "C" at::Tensor WRAP(CONV)(const hotlora::Conv2d* self, const at::Tensor& x, hotlora::SideBranch side) {
  const bool nan = hotlora::faults::PassKernel();
  return Passed(nan, REAL(CONV)(self, x, side));
}

extern "C" void REAL(MERGE)(at::Tensor& live, const at::Tensor& clean, absl::Span<const hotlora::WeightedDelta> deltas,
                            hotlora::DoraWeighting dora);
extern "C" void WRAP(MERGE)(at::Tensor& live, const at::Tensor& clean, absl::Span<const hotlora::WeightedDelta> deltas,
                            hotlora::DoraWeighting dora) {
  hotlora::faults::PassKernel();
  REAL(MERGE)(live, clean, deltas, dora);
}

// --- what a soak must find: Metrics::CountSwap, which every swap calls on the step thread

extern "C" void __real__ZN7hotlora7Metrics9CountSwapEb(hotlora::Metrics* metrics, bool ok);
extern "C" void __wrap__ZN7hotlora7Metrics9CountSwapEb(hotlora::Metrics* metrics, bool ok) {
  static auto* const tensors = new std::vector<at::Tensor>;
  static auto* const blocks = new std::vector<void*>;
  static int64_t swaps = 0;
  ++swaps;
  const hotlora::faults::Settings settings = hotlora::faults::CurrentSettings();
  if (settings.leaked_tensor_bytes_a_swap > 0) {
    // On the device under test: CUDA is loaded only if it computes there.
    const c10::Device device = at::hasCUDA() ? at::kCUDA : at::kCPU;
    tensors->push_back(at::empty({settings.leaked_tensor_bytes_a_swap}, at::TensorOptions(device).dtype(at::kByte)));
  }
  if (const auto bytes = static_cast<size_t>(settings.leaked_heap_bytes_a_swap); bytes > 0) {
    blocks->push_back(std::memset(std::malloc(bytes), 1, bytes));
  }
  absl::SleepFor(absl::Nanoseconds(settings.slower_nanoseconds_each_swap * swaps));
  __real__ZN7hotlora7Metrics9CountSwapEb(metrics, ok);
}
