#include "src/metrics/nvml.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>

#include "src/base/logging.h"

namespace hotlora {

struct Nvml::ProcessInfo {
  unsigned int pid;
  unsigned long long used_gpu_memory;  // NOLINT(google-runtime-int)
  unsigned int gpu_instance_id, compute_instance_id;
};
struct Nvml::UtilizationRates {
  unsigned int gpu, memory;  // per cent
};
struct Nvml::ViolationTime {
  unsigned long long reference_time, violation_time;  // NOLINT(google-runtime-int): us, ns
};

namespace {

constexpr int kNvmlSuccess = 0;
constexpr unsigned int kTemperatureGpu = 0;
constexpr unsigned int kClockSm = 1, kClockMemory = 2;
constexpr unsigned int kUncorrectedErrors = 1;
constexpr unsigned int kVolatileEcc = 0;
constexpr unsigned int kMaxProcesses = 256;
constexpr unsigned int kTextLength = 96;

// The last argument of a function, which it fills in, times `unit`.
template <typename Value, typename Function, typename... Arguments>
std::optional<double> Ask(double unit, Function* function, Arguments... arguments) {
  Value value = 0;
  return function(arguments..., &value) == kNvmlSuccess ? std::optional<double>(static_cast<double>(value) * unit)
                                                        : std::nullopt;
}

}  // namespace

Nvml::Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
  if (library_ == nullptr) {
    return;
  }
  up_ = ResolveAll() && init_() == kNvmlSuccess;
  if (!up_) {
    LogWarning("NVML is there but does not work: no gpu memory figures");
  }
}

Nvml::~Nvml() {
  if (up_) {
    shutdown_();
  }
  if (library_ != nullptr) {
    dlclose(library_);
  }
}

template <typename Function>
bool Nvml::Resolve(const char* name, Function*& function) const {
  function = reinterpret_cast<Function*>(dlsym(library_, name));
  return function != nullptr;
}

bool Nvml::ResolveAll() {
  return Resolve("nvmlInit_v2", init_) && Resolve("nvmlShutdown", shutdown_) &&
         Resolve("nvmlDeviceGetCount_v2", count_) && Resolve("nvmlDeviceGetHandleByIndex_v2", handle_) &&
         Resolve("nvmlDeviceGetHandleByPciBusId_v2", handle_on_bus_) && Resolve("nvmlDeviceGetUUID", uuid_) &&
         Resolve("nvmlDeviceGetMemoryInfo", memory_) &&
         Resolve("nvmlDeviceGetComputeRunningProcesses_v3", processes_) && Resolve("nvmlDeviceGetName", name_) &&
         Resolve("nvmlSystemGetDriverVersion", driver_) && Resolve("nvmlDeviceGetUtilizationRates", utilization_) &&
         Resolve("nvmlDeviceGetTemperature", temperature_) && Resolve("nvmlDeviceGetClockInfo", clock_) &&
         Resolve("nvmlDeviceGetPowerUsage", power_) && Resolve("nvmlDeviceGetTotalEnergyConsumption", energy_) &&
         Resolve("nvmlDeviceGetTotalEccErrors", ecc_errors_) &&
         Resolve("nvmlDeviceGetCurrentClocksThrottleReasons", throttle_reasons_) &&
         Resolve("nvmlDeviceGetViolationStatus", violation_);
}

std::vector<NvmlDevice> Nvml::Devices() const {
  unsigned int count = 0;
  std::vector<NvmlDevice> devices;
  if (!up_ || count_(&count) != kNvmlSuccess) {
    return devices;
  }
  for (unsigned int index = 0; index < count; ++index) {
    if (NvmlDevice device = nullptr; handle_(index, &device) == kNvmlSuccess) {
      devices.push_back(device);
    }
  }
  return devices;
}

NvmlDevice Nvml::DeviceOnBus(const std::string& pci_bus_id) const {
  NvmlDevice device = nullptr;
  return handle_on_bus_(pci_bus_id.c_str(), &device) == kNvmlSuccess ? device : nullptr;
}

std::string Nvml::Uuid(NvmlDevice device) const {
  char text[kTextLength] = {};
  return uuid_(device, text, kTextLength) == kNvmlSuccess ? text : "unknown";
}

std::string Nvml::Name(NvmlDevice device) const {
  char text[kTextLength] = {};
  return name_(device, text, kTextLength) == kNvmlSuccess ? text : "unknown";
}

std::string Nvml::Driver() const {
  char text[kTextLength] = {};
  return driver_(text, kTextLength) == kNvmlSuccess ? text : "unknown";
}

std::optional<Nvml::MemoryBytes> Nvml::Memory(NvmlDevice device) const {
  MemoryBytes memory{};
  return memory_(device, &memory) == kNvmlSuccess ? std::optional(memory) : std::nullopt;
}

std::optional<double> Nvml::OwnBytes(NvmlDevice device) const {
  unsigned int count = kMaxProcesses;
  std::vector<ProcessInfo> infos(count);
  if (processes_(device, &count, infos.data()) != kNvmlSuccess) {
    return std::nullopt;
  }
  for (unsigned int i = 0; i < std::min(count, kMaxProcesses); ++i) {
    if (infos[i].pid == static_cast<unsigned int>(getpid())) {
      return static_cast<double>(infos[i].used_gpu_memory);
    }
  }
  return std::nullopt;
}

std::optional<double> Nvml::Utilization(NvmlDevice device) const {
  UtilizationRates rates{};
  return utilization_(device, &rates) == kNvmlSuccess ? std::optional<double>(rates.gpu / 100.0) : std::nullopt;
}

std::optional<double> Nvml::Temperature(NvmlDevice device) const {
  return Ask<unsigned int>(1, temperature_, device, kTemperatureGpu);
}

std::optional<double> Nvml::SmClockHertz(NvmlDevice device) const {
  return Ask<unsigned int>(1e6, clock_, device, kClockSm);
}

std::optional<double> Nvml::MemoryClockHertz(NvmlDevice device) const {
  return Ask<unsigned int>(1e6, clock_, device, kClockMemory);
}

std::optional<double> Nvml::PowerWatts(NvmlDevice device) const { return Ask<unsigned int>(1e-3, power_, device); }

std::optional<double> Nvml::EnergyJoules(NvmlDevice device) const {
  return Ask<unsigned long long>(1e-3, energy_, device);  // NOLINT(google-runtime-int)
}

std::optional<double> Nvml::EccErrors(NvmlDevice device) const {
  return Ask<unsigned long long>(1, ecc_errors_, device, kUncorrectedErrors, kVolatileEcc);  // NOLINT
}

std::optional<uint64_t> Nvml::ThrottleReasons(NvmlDevice device) const {
  unsigned long long reasons = 0;  // NOLINT(google-runtime-int)
  return throttle_reasons_(device, &reasons) == kNvmlSuccess ? std::optional<uint64_t>(reasons) : std::nullopt;
}

std::optional<double> Nvml::ThrottleSeconds(NvmlDevice device, unsigned int policy) const {
  ViolationTime time{};
  return violation_(device, policy, &time) == kNvmlSuccess
             ? std::optional<double>(static_cast<double>(time.violation_time) / 1e9)
             : std::nullopt;
}

}  // namespace hotlora
