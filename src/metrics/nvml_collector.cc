#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <prometheus/client_metric.h>
#include <prometheus/metric_type.h>

#include "src/base/logging.h"
#include "src/base/stopwatch.h"
#include "src/metrics/collectors.h"

namespace hotlora {
namespace {

// NVML's C interface as far as it is used here (NVIDIA, NVML API Reference Guide). Declared, not included: the driver
// brings the library at run time, and hotlora must start without it.
using NvmlDevice = struct NvmlDeviceStruct*;
struct NvmlMemory {
  unsigned long long total, free, used;  // NOLINT(google-runtime-int): NVML's own type
};
struct NvmlProcessInfo {
  unsigned int pid;
  unsigned long long used_gpu_memory;  // NOLINT(google-runtime-int)
  unsigned int gpu_instance_id, compute_instance_id;
};
struct NvmlUtilization {
  unsigned int gpu, memory;  // per cent
};
struct NvmlViolationTime {
  unsigned long long reference_time, violation_time;  // NOLINT(google-runtime-int): us, ns
};
constexpr int kNvmlSuccess = 0;
constexpr unsigned int kTemperatureGpu = 0;
constexpr unsigned int kClockSm = 1;
constexpr unsigned int kUncorrectedErrors = 1;
constexpr unsigned int kVolatileEcc = 0;
// nvmlPerfPolicyType_t, and the label.
constexpr std::pair<unsigned int, const char*> kThrottlePolicies[] = {{0, "power"}, {1, "thermal"}, {5, "reliability"}};
constexpr unsigned int kMaxProcesses = 256;
constexpr unsigned int kUuidLength = 96;

class Nvml {
 public:
  Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) {
      return;
    }
    int (*init)() = nullptr;
    up_ = Resolve("nvmlInit_v2", init) && Resolve("nvmlShutdown", shutdown_) &&
          Resolve("nvmlDeviceGetCount_v2", count_) && Resolve("nvmlDeviceGetHandleByIndex_v2", handle_) &&
          Resolve("nvmlDeviceGetUUID", uuid_) && Resolve("nvmlDeviceGetMemoryInfo", memory_) &&
          Resolve("nvmlDeviceGetComputeRunningProcesses_v3", processes_) && Resolve("nvmlDeviceGetName", name_) &&
          Resolve("nvmlSystemGetDriverVersion", driver_) && Resolve("nvmlDeviceGetUtilizationRates", utilization_) &&
          Resolve("nvmlDeviceGetTemperature", temperature_) && Resolve("nvmlDeviceGetClockInfo", clock_) &&
          Resolve("nvmlDeviceGetTotalEnergyConsumption", energy_) &&
          Resolve("nvmlDeviceGetTotalEccErrors", ecc_errors_) && Resolve("nvmlDeviceGetViolationStatus", violation_) &&
          init() == kNvmlSuccess;
    if (!up_) {
      LogWarning("NVML is there but does not work: no gpu memory figures");
    }
  }
  ~Nvml() {
    if (up_) {
      shutdown_();
    }
    if (library_ != nullptr) {
      dlclose(library_);
    }
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  bool up() const { return up_; }

  std::vector<NvmlDevice> Devices() const {
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

  std::string Uuid(NvmlDevice device) const {
    char text[kUuidLength] = {};
    return uuid_(device, text, kUuidLength) == kNvmlSuccess ? text : "unknown";
  }

  std::string Name(NvmlDevice device) const {
    char text[kUuidLength] = {};
    return name_(device, text, kUuidLength) == kNvmlSuccess ? text : "unknown";
  }

  std::string Driver() const {
    char text[kUuidLength] = {};
    return driver_(text, kUuidLength) == kNvmlSuccess ? text : "unknown";
  }

  // What a device does not tell (old ones know no energy, many no ECC) is nullopt.
  std::optional<double> Utilization(NvmlDevice device) const {
    NvmlUtilization rates{};
    return utilization_(device, &rates) == kNvmlSuccess ? std::optional<double>(rates.gpu / 100.0) : std::nullopt;
  }
  std::optional<double> Temperature(NvmlDevice device) const {
    unsigned int celsius = 0;
    return temperature_(device, kTemperatureGpu, &celsius) == kNvmlSuccess ? std::optional<double>(celsius)
                                                                           : std::nullopt;
  }
  std::optional<double> SmClockHertz(NvmlDevice device) const {
    unsigned int megahertz = 0;
    return clock_(device, kClockSm, &megahertz) == kNvmlSuccess ? std::optional<double>(megahertz * 1e6) : std::nullopt;
  }
  std::optional<double> EnergyJoules(NvmlDevice device) const {
    unsigned long long millijoules = 0;  // NOLINT(google-runtime-int)
    return energy_(device, &millijoules) == kNvmlSuccess ? std::optional<double>(static_cast<double>(millijoules) / 1e3)
                                                         : std::nullopt;
  }
  std::optional<double> EccErrors(NvmlDevice device) const {
    unsigned long long errors = 0;  // NOLINT(google-runtime-int)
    return ecc_errors_(device, kUncorrectedErrors, kVolatileEcc, &errors) == kNvmlSuccess
               ? std::optional<double>(static_cast<double>(errors))
               : std::nullopt;
  }
  std::optional<double> ThrottleSeconds(NvmlDevice device, unsigned int policy) const {
    NvmlViolationTime time{};
    return violation_(device, policy, &time) == kNvmlSuccess
               ? std::optional<double>(static_cast<double>(time.violation_time) / 1e9)
               : std::nullopt;
  }

  bool Memory(NvmlDevice device, NvmlMemory* memory) const { return memory_(device, memory) == kNvmlSuccess; }

  // Bytes this process holds on the device; false if NVML does not say (other pid namespace, old driver).
  bool OwnBytes(NvmlDevice device, unsigned long long* bytes) const {  // NOLINT(google-runtime-int)
    unsigned int count = kMaxProcesses;
    std::vector<NvmlProcessInfo> infos(count);
    if (processes_(device, &count, infos.data()) != kNvmlSuccess) {
      return false;
    }
    for (unsigned int i = 0; i < std::min(count, kMaxProcesses); ++i) {
      if (infos[i].pid == static_cast<unsigned int>(getpid())) {
        *bytes = infos[i].used_gpu_memory;
        return true;
      }
    }
    return false;
  }

 private:
  template <typename Function>
  bool Resolve(const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(dlsym(library_, name));
    return function != nullptr;
  }

  void* library_;
  bool up_ = false;
  int (*shutdown_)() = nullptr;
  int (*count_)(unsigned int*) = nullptr;
  int (*handle_)(unsigned int, NvmlDevice*) = nullptr;
  int (*uuid_)(NvmlDevice, char*, unsigned int) = nullptr;
  int (*memory_)(NvmlDevice, NvmlMemory*) = nullptr;
  int (*processes_)(NvmlDevice, unsigned int*, NvmlProcessInfo*) = nullptr;
  int (*name_)(NvmlDevice, char*, unsigned int) = nullptr;
  int (*driver_)(char*, unsigned int) = nullptr;
  int (*utilization_)(NvmlDevice, NvmlUtilization*) = nullptr;
  int (*temperature_)(NvmlDevice, unsigned int, unsigned int*) = nullptr;
  int (*clock_)(NvmlDevice, unsigned int, unsigned int*) = nullptr;
  int (*energy_)(NvmlDevice, unsigned long long*) = nullptr;                                  // NOLINT
  int (*ecc_errors_)(NvmlDevice, unsigned int, unsigned int, unsigned long long*) = nullptr;  // NOLINT
  int (*violation_)(NvmlDevice, unsigned int, NvmlViolationTime*) = nullptr;
};

using prometheus::MetricFamily;
using prometheus::MetricType;

// The families of one scrape, each made when its first sample comes.
class Families {
 public:
  using Labels = std::vector<prometheus::ClientMetric::Label>;

  void Add(const char* name, const char* help, MetricType type, double value, Labels labels) {
    auto family = std::find_if(families_.begin(), families_.end(), [&](const auto& f) { return f.name == name; });
    if (family == families_.end()) {
      family = families_.insert(family, MetricFamily{name, help, type, {}});
    }
    prometheus::ClientMetric metric;
    metric.label = std::move(labels);
    if (type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    family->metric.push_back(std::move(metric));
  }

  std::vector<MetricFamily> Take() && { return std::move(families_); }

 private:
  std::vector<MetricFamily> families_;
};

class NvmlCollector : public prometheus::Collectable {
 public:
  explicit NvmlCollector(std::function<int64_t()> reserved_bytes) : reserved_bytes_(std::move(reserved_bytes)) {}

  std::vector<MetricFamily> Collect() const override {
    Families families;
    families.Add("hotlora_nvml_up", "1 where NVML answers", MetricType::Gauge, nvml_.up() ? 1 : 0, {});
    const Stopwatch stopwatch;
    for (NvmlDevice device : nvml_.Devices()) {
      AddMemory(device, &families);
      AddState(device, &families);
    }
    families.Add("hotlora_nvml_scrape_duration_seconds", "How long reading NVML took", MetricType::Gauge,
                 stopwatch.Seconds(), {});
    families.Add("hotlora_nvml_scrape_errors_total", "Devices that NVML knows and could not describe",
                 MetricType::Counter, static_cast<double>(errors_), {});
    return std::move(families).Take();
  }

 private:
  void AddMemory(NvmlDevice device, Families* families) const {
    NvmlMemory memory{};
    if (!nvml_.Memory(device, &memory)) {
      ++errors_;
      return;
    }
    const auto add = [&, uuid = nvml_.Uuid(device)](const char* name, const char* help, double value) {
      families->Add(name, help, MetricType::Gauge, value, {{"gpu_uuid", uuid}});
    };
    add("hotlora_gpu_memory_used_bytes", "Memory in use by all processes, by NVML", static_cast<double>(memory.used));
    add("hotlora_gpu_memory_free_bytes", "Free memory, by NVML", static_cast<double>(memory.free));
    add("hotlora_gpu_memory_total_bytes", "Installed memory, by NVML", static_cast<double>(memory.total));
    unsigned long long own = 0;  // NOLINT(google-runtime-int)
    if (nvml_.OwnBytes(device, &own)) {
      add("hotlora_gpu_process_memory_bytes", "Memory this process holds, by NVML", static_cast<double>(own));
      add("hotlora_gpu_memory_unaccounted_bytes", "What this process holds beyond the allocator's reserved bytes",
          static_cast<double>(own) - static_cast<double>(reserved_bytes_()));
    }
  }

  void AddState(NvmlDevice device, Families* families) const {
    const std::string uuid = nvml_.Uuid(device);
    const auto add = [&](const char* name, const char* help, MetricType type, std::optional<double> value) {
      if (value.has_value()) {
        families->Add(name, help, type, *value, {{"gpu_uuid", uuid}});
      }
    };
    families->Add("hotlora_gpu_info", "1, with the GPU's name and driver as labels", MetricType::Gauge, 1,
                  {{"gpu_uuid", uuid}, {"name", nvml_.Name(device)}, {"driver", nvml_.Driver()}});
    add("hotlora_gpu_utilization_ratio", "Share of time in which a kernel ran, by NVML", MetricType::Gauge,
        nvml_.Utilization(device));
    add("hotlora_gpu_temperature_celsius", "Temperature of the GPU", MetricType::Gauge, nvml_.Temperature(device));
    add("hotlora_gpu_sm_clock_hertz", "Clock of the multiprocessors", MetricType::Gauge, nvml_.SmClockHertz(device));
    add("hotlora_gpu_energy_joules_total", "Energy used since the driver was loaded", MetricType::Counter,
        nvml_.EnergyJoules(device));
    add("hotlora_gpu_ecc_errors_total", "Memory errors that ECC could not correct, since the driver was loaded",
        MetricType::Counter, nvml_.EccErrors(device));
    for (const auto& [policy, reason] : kThrottlePolicies) {
      if (const auto seconds = nvml_.ThrottleSeconds(device, policy); seconds.has_value()) {
        families->Add("hotlora_gpu_throttle_seconds_total", "Time the clock was held down, by why", MetricType::Counter,
                      *seconds, {{"gpu_uuid", uuid}, {"reason", reason}});
      }
    }
  }

  Nvml nvml_;
  std::function<int64_t()> reserved_bytes_;
  mutable std::atomic<uint64_t> errors_ = 0;
};

}  // namespace

std::shared_ptr<prometheus::Collectable> MakeNvmlCollector(std::function<int64_t()> reserved_bytes) {
  return std::make_shared<NvmlCollector>(std::move(reserved_bytes));
}

}  // namespace hotlora
