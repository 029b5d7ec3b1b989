#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <prometheus/client_metric.h>
#include <prometheus/metric_type.h>

#include "src/base/stopwatch.h"
#include "src/metrics/collectors.h"
#include "src/metrics/nvml.h"

namespace hotlora {
namespace {

// nvmlPerfPolicyType_t, and the label.
constexpr std::pair<unsigned int, const char*> kThrottlePolicies[] = {{0, "power"}, {1, "thermal"}, {5, "reliability"}};

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
    const std::optional<Nvml::MemoryBytes> memory = nvml_.Memory(device);
    if (!memory.has_value()) {
      ++errors_;
      return;
    }
    const auto add = [&, uuid = nvml_.Uuid(device)](const char* name, const char* help, double value) {
      families->Add(name, help, MetricType::Gauge, value, {{"gpu_uuid", uuid}});
    };
    add("hotlora_gpu_memory_used_bytes", "Memory in use by all processes, by NVML", static_cast<double>(memory->used));
    add("hotlora_gpu_memory_free_bytes", "Free memory, by NVML", static_cast<double>(memory->free));
    add("hotlora_gpu_memory_total_bytes", "Installed memory, by NVML", static_cast<double>(memory->total));
    if (const std::optional<double> own = nvml_.OwnBytes(device); own.has_value()) {
      add("hotlora_gpu_process_memory_bytes", "Memory this process holds, by NVML", *own);
      add("hotlora_gpu_memory_unaccounted_bytes", "What this process holds beyond the allocator's reserved bytes",
          *own - static_cast<double>(reserved_bytes_()));
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
