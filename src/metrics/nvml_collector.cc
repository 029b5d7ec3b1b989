#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <prometheus/client_metric.h>
#include <prometheus/metric_type.h>

#include "src/base/logging.h"
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
constexpr int kNvmlSuccess = 0;
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
          Resolve("nvmlDeviceGetComputeRunningProcesses_v3", processes_) && init() == kNvmlSuccess;
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

  bool Memory(NvmlDevice device, NvmlMemory* memory) const { return memory_(device, memory) == kNvmlSuccess; }

  // Bytes this process holds on the device; false where NVML does not say (other pid namespace, old driver).
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
};

class NvmlCollector : public prometheus::Collectable {
 public:
  explicit NvmlCollector(std::function<int64_t()> reserved_bytes) : reserved_bytes_(std::move(reserved_bytes)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    using prometheus::MetricType;
    prometheus::MetricFamily up{"hotlora_nvml_up", "1 where NVML answers", MetricType::Gauge, {{}}};
    up.metric[0].gauge.value = nvml_.up() ? 1 : 0;
    std::vector<prometheus::MetricFamily> families = {up};
    if (!nvml_.up()) {
      return families;
    }
    prometheus::MetricFamily used{
        "hotlora_gpu_memory_used_bytes", "Memory in use by all processes, by NVML", MetricType::Gauge, {}};
    prometheus::MetricFamily free{"hotlora_gpu_memory_free_bytes", "Free memory, by NVML", MetricType::Gauge, {}};
    prometheus::MetricFamily total{
        "hotlora_gpu_memory_total_bytes", "Installed memory, by NVML", MetricType::Gauge, {}};
    prometheus::MetricFamily unaccounted{"hotlora_gpu_memory_unaccounted_bytes",
                                         "What this process holds beyond the allocator's reserved bytes",
                                         MetricType::Gauge,
                                         {}};
    for (NvmlDevice device : nvml_.Devices()) {
      NvmlMemory memory{};
      if (!nvml_.Memory(device, &memory)) {
        continue;
      }
      const std::string uuid = nvml_.Uuid(device);
      const auto add = [&uuid](prometheus::MetricFamily& family, double value) {
        prometheus::ClientMetric metric;
        metric.label = {{"gpu_uuid", uuid}};
        metric.gauge.value = value;
        family.metric.push_back(std::move(metric));
      };
      add(used, static_cast<double>(memory.used));
      add(free, static_cast<double>(memory.free));
      add(total, static_cast<double>(memory.total));
      unsigned long long own = 0;  // NOLINT(google-runtime-int)
      if (nvml_.OwnBytes(device, &own)) {
        add(unaccounted, static_cast<double>(own) - static_cast<double>(reserved_bytes_()));
      }
    }
    families.insert(families.end(), {used, free, total, unaccounted});
    return families;
  }

 private:
  Nvml nvml_;
  std::function<int64_t()> reserved_bytes_;
};

}  // namespace

std::shared_ptr<prometheus::Collectable> MakeNvmlCollector(std::function<int64_t()> reserved_bytes) {
  return std::make_shared<NvmlCollector>(std::move(reserved_bytes));
}

}  // namespace hotlora
