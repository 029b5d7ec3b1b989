#ifndef HOTLORA_TESTS_GPU_CUDA_RUNTIME_H_
#define HOTLORA_TESTS_GPU_CUDA_RUNTIME_H_

#include <optional>
#include <string>

#include <c10/core/Device.h>

namespace hotlora {

// What the CUDA runtime that LoadCuda brought says. nullopt: there is none, or it does not say.
namespace cuda_runtime {

// As CUDA writes it: 13000 is 13.0.
std::optional<int> DriverVersion();
std::optional<int> RuntimeVersion();

// "0000:3B:00.0".
std::optional<std::string> PciBusId(c10::Device device);

// Values of cudaDeviceAttr.
enum class Attribute {
  kClockKilohertz = 13,
  kMultiprocessors = 16,
  kMemoryClockKilohertz = 36,
  kMemoryBusBits = 37,
  kL2Bytes = 38,
  kMajor = 75,  // of the compute capability
  kMinor = 76,
};
std::optional<int> ValueOf(Attribute attribute, c10::Device device);

}  // namespace cuda_runtime
}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_CUDA_RUNTIME_H_
