#include "src/metrics/collectors.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include <prometheus/client_metric.h>
#include <prometheus/metric_type.h>

namespace hotlora {
namespace {

prometheus::MetricFamily OneValueFamily(const char* name, const char* help, prometheus::MetricType type, double value,
                                        std::vector<prometheus::ClientMetric::Label> labels) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  if (type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  return {name, help, type, {std::move(metric)}};
}

constexpr auto kGauge = prometheus::MetricType::Gauge;
constexpr auto kCounter = prometheus::MetricType::Counter;

// Start of this process in seconds since 1970: its start in clock ticks since boot (field 22 of stat) after the boot
// time.
double StartTimeSeconds(double start_ticks, double ticks_per_second) {
  std::ifstream stat("/proc/stat");
  std::string line;
  while (std::getline(stat, line)) {
    double boot = 0;
    if (line.rfind("btime ", 0) == 0 && absl::SimpleAtod(line.substr(6), &boot)) {
      return boot + start_ticks / ticks_per_second;
    }
  }
  return 0;
}

double CountOpenFiles() {
  DIR* const directory = opendir("/proc/self/fd");
  if (directory == nullptr) {
    return 0;
  }
  int entries = -3;  // ".", ".." and the directory itself
  while (readdir(directory) != nullptr) {
    ++entries;
  }
  closedir(directory);
  return entries;
}

class ProcessCollector : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    std::ifstream file("/proc/self/stat");
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    // The second field, the program's name, may hold spaces; what follows its closing bracket is field 3 and on.
    const std::vector<std::string> fields = absl::StrSplit(text.substr(text.rfind(')') + 2), ' ');
    const auto field = [&fields](size_t number) {
      double value = 0;
      return number - 3 < fields.size() && absl::SimpleAtod(fields[number - 3], &value) ? value : 0.0;
    };
    const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    return {
        OneValueFamily("process_cpu_seconds_total", "User and system CPU time", kCounter,
                       (field(14) + field(15)) / ticks, {}),
        OneValueFamily("process_resident_memory_bytes", "Resident memory", kGauge,
                       field(24) * static_cast<double>(sysconf(_SC_PAGESIZE)), {}),
        OneValueFamily("process_virtual_memory_bytes", "Virtual memory", kGauge, field(23), {}),
        OneValueFamily("process_start_time_seconds", "Start of the process since the Unix epoch", kGauge,
                       StartTimeSeconds(field(22), ticks), {}),
        OneValueFamily("process_open_fds", "Open file descriptors", kGauge, CountOpenFiles(), {}),
        OneValueFamily("process_max_fds", "Allowed file descriptors", kGauge, static_cast<double>(files.rlim_cur), {}),
        OneValueFamily("process_threads", "Threads", kGauge, field(20), {}),
    };
  }
};

}  // namespace

std::shared_ptr<prometheus::Collectable> MakeProcessCollector() { return std::make_shared<ProcessCollector>(); }

void SourcesCollector::Set(GaugeSources sources) {
  absl::MutexLock lock(&mu_);
  sources_ = std::move(sources);
}

int64_t SourcesCollector::GpuReservedBytes() const {
  absl::MutexLock lock(&mu_);
  return sources_.device_memory && sources_.device != "cpu" ? sources_.device_memory().reserved_bytes : 0;
}

std::vector<prometheus::MetricFamily> SourcesCollector::Collect() const {
  absl::MutexLock lock(&mu_);
  std::vector<prometheus::MetricFamily> families;
  if (sources_.device_memory) {
    const DeviceMemory memory = sources_.device_memory();
    const std::vector<prometheus::ClientMetric::Label> labels = {{"device", sources_.device}};
    families.push_back(OneValueFamily("hotlora_device_memory_allocated_bytes",
                                      "Bytes of live tensors, by the allocator's own count", kGauge,
                                      static_cast<double>(memory.allocated_bytes), labels));
    families.push_back(OneValueFamily("hotlora_device_memory_reserved_bytes", "Bytes the allocator holds of the device",
                                      kGauge, static_cast<double>(memory.reserved_bytes), labels));
    families.push_back(OneValueFamily("hotlora_device_memory_fragmentation_ratio",
                                      "Share of reserved bytes in remainders that cannot be used", kGauge,
                                      memory.fragmentation_ratio, labels));
  }
  if (sources_.queue_depth) {
    families.push_back(OneValueFamily("hotlora_queue_depth", "Requests that wait", kGauge, sources_.queue_depth(), {}));
    families.push_back(
        OneValueFamily("hotlora_queue_capacity", "Requests that may wait", kGauge, sources_.queue_capacity, {}));
  }
  return families;
}

}  // namespace hotlora
