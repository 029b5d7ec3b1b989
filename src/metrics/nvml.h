#ifndef HOTLORA_SRC_METRICS_NVML_H_
#define HOTLORA_SRC_METRICS_NVML_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hotlora {

// A GPU as NVML names it.
using NvmlDevice = struct NvmlDeviceStruct*;

// NVIDIA's management library, and what it says of the machine's GPUs. It is loaded at run time (libnvidia-ml.so.1),
// because the driver brings it and hotlora starts without it.
//
// Threads  thread-safe
class Nvml {
 public:
  struct MemoryBytes {
    unsigned long long total, free, used;  // NOLINT(google-runtime-int): NVML's own type
  };

  Nvml();
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // True if the library is there and works. Otherwise Devices is empty, and nothing else may be called.
  bool up() const { return up_; }

  std::vector<NvmlDevice> Devices() const;
  // The one at that place, as CUDA writes it ("0000:3B:00.0"); nullptr: none is.
  NvmlDevice DeviceOnBus(const std::string& pci_bus_id) const;

  // "unknown" if NVML does not say.
  std::string Uuid(NvmlDevice device) const;
  std::string Name(NvmlDevice device) const;
  std::string Driver() const;

  // A value that a device does not tell is nullopt: old ones do not know energy, many do not know ECC.
  std::optional<MemoryBytes> Memory(NvmlDevice device) const;
  // Bytes this process holds on the device. Also nullopt in another pid namespace.
  std::optional<double> OwnBytes(NvmlDevice device) const;
  std::optional<double> Utilization(NvmlDevice device) const;  // 0 to 1
  std::optional<double> Temperature(NvmlDevice device) const;  // degrees Celsius
  std::optional<double> SmClockHertz(NvmlDevice device) const;
  std::optional<double> MemoryClockHertz(NvmlDevice device) const;
  std::optional<double> PowerWatts(NvmlDevice device) const;
  std::optional<double> EnergyJoules(NvmlDevice device) const;  // since the driver was loaded
  std::optional<double> EccErrors(NvmlDevice device) const;     // that were not corrected, since the driver was loaded
  // Why the clock is not higher now: bits of nvmlClocksEventReasons.
  std::optional<uint64_t> ThrottleReasons(NvmlDevice device) const;
  // For how long the clock was held down by a policy (nvmlPerfPolicyType_t).
  std::optional<double> ThrottleSeconds(NvmlDevice device, unsigned int policy) const;

 private:
  template <typename Function>
  bool Resolve(const char* name, Function*& function) const;
  bool ResolveAll();

  void* library_;
  bool up_ = false;
  // NVML's C interface as far as it is used here (NVIDIA, NVML API Reference Guide).
  struct ProcessInfo;
  struct UtilizationRates;
  struct ViolationTime;
  int (*init_)() = nullptr;
  int (*shutdown_)() = nullptr;
  int (*count_)(unsigned int*) = nullptr;
  int (*handle_)(unsigned int, NvmlDevice*) = nullptr;
  int (*handle_on_bus_)(const char*, NvmlDevice*) = nullptr;
  int (*uuid_)(NvmlDevice, char*, unsigned int) = nullptr;
  int (*memory_)(NvmlDevice, MemoryBytes*) = nullptr;
  int (*processes_)(NvmlDevice, unsigned int*, ProcessInfo*) = nullptr;
  int (*name_)(NvmlDevice, char*, unsigned int) = nullptr;
  int (*driver_)(char*, unsigned int) = nullptr;
  int (*utilization_)(NvmlDevice, UtilizationRates*) = nullptr;
  int (*temperature_)(NvmlDevice, unsigned int, unsigned int*) = nullptr;
  int (*clock_)(NvmlDevice, unsigned int, unsigned int*) = nullptr;
  int (*power_)(NvmlDevice, unsigned int*) = nullptr;
  int (*energy_)(NvmlDevice, unsigned long long*) = nullptr;                                  // NOLINT
  int (*ecc_errors_)(NvmlDevice, unsigned int, unsigned int, unsigned long long*) = nullptr;  // NOLINT
  int (*throttle_reasons_)(NvmlDevice, unsigned long long*) = nullptr;                        // NOLINT
  int (*violation_)(NvmlDevice, unsigned int, ViolationTime*) = nullptr;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_NVML_H_
