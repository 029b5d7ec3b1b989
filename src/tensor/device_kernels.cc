#include "src/tensor/device_kernels.h"

#include <array>
#include <atomic>

namespace hotlora {
namespace {

std::atomic<const DeviceKernels*>& Entry(c10::DeviceType type) {
  static std::array<std::atomic<const DeviceKernels*>, c10::COMPILE_TIME_MAX_DEVICE_TYPES> entries{};
  return entries.at(static_cast<size_t>(type));
}

}  // namespace

const DeviceKernels* KernelsOf(c10::DeviceType type) { return Entry(type).load(std::memory_order_acquire); }

void SetKernels(c10::DeviceType type, const DeviceKernels* kernels) {
  Entry(type).store(kernels, std::memory_order_release);
}

}  // namespace hotlora
