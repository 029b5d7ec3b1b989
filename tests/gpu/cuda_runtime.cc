#include "tests/gpu/cuda_runtime.h"

#include <dlfcn.h>

namespace hotlora::cuda_runtime {
namespace {

// The program links no CUDA: libhotlora_cuda.so has brought the runtime for all to see.
template <typename... Arguments>
bool Call(const char* name, Arguments... arguments) {
  const auto function = reinterpret_cast<int (*)(Arguments...)>(dlsym(RTLD_DEFAULT, name));
  return function != nullptr && function(arguments...) == 0;
}

}  // namespace

std::optional<int> DriverVersion() {
  int version = 0;
  return Call("cudaDriverGetVersion", &version) ? std::optional(version) : std::nullopt;
}

std::optional<int> RuntimeVersion() {
  int version = 0;
  return Call("cudaRuntimeGetVersion", &version) ? std::optional(version) : std::nullopt;
}

std::optional<std::string> PciBusId(c10::Device device) {
  char text[32] = {};
  return Call("cudaDeviceGetPCIBusId", &text[0], static_cast<int>(sizeof(text)), static_cast<int>(device.index()))
             ? std::optional<std::string>(text)
             : std::nullopt;
}

std::optional<int> ValueOf(Attribute attribute, c10::Device device) {
  int value = 0;
  return Call("cudaDeviceGetAttribute", &value, static_cast<int>(attribute), static_cast<int>(device.index()))
             ? std::optional(value)
             : std::nullopt;
}

}  // namespace hotlora::cuda_runtime
