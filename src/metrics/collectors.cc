#include "src/metrics/collectors.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include <prometheus/client_metric.h>
#include <prometheus/metric_type.h>

#include "src/base/logging.h"

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

constexpr absl::Duration kDiskPeriod = absl::Seconds(10);

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

prometheus::MetricFamily LogLines() {
  prometheus::MetricFamily family{"hotlora_log_messages_total", "Log lines, by level", kCounter, {}};
  for (size_t level = 0; level < std::size(kLogLevelNames); ++level) {
    prometheus::ClientMetric metric;
    metric.label = {{"level", kLogLevelNames[level]}};
    metric.counter.value = static_cast<double>(LogLineCount(static_cast<LogLevel>(level)));
    family.metric.push_back(std::move(metric));
  }
  return family;
}

prometheus::MetricFamily LostLogLines() {
  return OneValueFamily("hotlora_log_dropped_total", "Lines of the log and the access log that were dropped", kCounter,
                        static_cast<double>(LostLogLineCount()), {});
}

void AddDeviceMemory(const MemoryStats& memory, const std::string& device,
                     std::vector<prometheus::MetricFamily>* families) {
  const auto add = [&](const char* name, const char* help, prometheus::MetricType type, double value) {
    families->push_back(OneValueFamily(name, help, type, value, {{"device", device}}));
  };
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  add("hotlora_device_memory_allocated_bytes", "Bytes of live tensors, by the allocator's own count", kGauge,
      number(memory.allocated));
  add("hotlora_device_memory_reserved_bytes", "Bytes the allocator holds of the device", kGauge,
      number(memory.reserved));
  add("hotlora_device_memory_fragmentation_ratio", "Share of reserved bytes in remainders that cannot be used", kGauge,
      memory.fragmentation());
  add("hotlora_device_memory_peak_allocated_bytes", "Most bytes of live tensors since the start", kGauge,
      number(memory.peak_allocated));
  add("hotlora_device_memory_active_bytes", "Bytes of blocks that are in use or wait for a stream", kGauge,
      number(memory.active));
  add("hotlora_device_memory_inactive_split_bytes", "Bytes of free remainders of split blocks", kGauge,
      number(memory.inactive_split));
  add("hotlora_device_memory_requested_bytes", "Bytes that were asked for, before rounding up", kGauge,
      number(memory.requested));
  add("hotlora_device_memory_segments", "Pieces of device memory that the allocator holds", kGauge,
      number(memory.segments));
  add("hotlora_device_memory_allocation_retries_total",
      "Allocations that succeeded only once the allocator's cache was given back", kCounter, number(memory.retries));
  add("hotlora_device_memory_oom_total", "Allocations that failed for want of memory", kCounter,
      number(memory.failures));
  add("hotlora_device_memory_device_allocations_total", "Times the allocator took memory from the device", kCounter,
      number(memory.taken));
  add("hotlora_device_memory_device_frees_total", "Times the allocator gave memory back to the device", kCounter,
      number(memory.returned));
}

}  // namespace

std::shared_ptr<prometheus::Collectable> MakeProcessCollector() { return std::make_shared<ProcessCollector>(); }

void SourcesCollector::Set(GaugeSources sources) {
  disk_watch_.reset();
  const std::string folder = sources.adapters_folder;
  LookAtDisk(folder);
  if (!folder.empty()) {
    disk_watch_.emplace("disk-watch", kDiskPeriod, [this, folder] { LookAtDisk(folder); });
  }
  MutexLock lock(&mu_);
  sources_ = std::move(sources);
}

void SourcesCollector::LookAtDisk(const std::string& folder) {
  struct statvfs disk {};
  const bool known = !folder.empty() && statvfs(folder.c_str(), &disk) == 0;
  MutexLock lock(&mu_);
  disk_free_bytes_ =
      known ? std::optional(static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize)) : std::nullopt;
}

int64_t SourcesCollector::GpuReservedBytes() const {
  MutexLock lock(&mu_);
  return sources_.device_memory && sources_.device != "cpu" ? sources_.device_memory().reserved : 0;
}

void SourcesCollector::SetCertificateEnd(std::function<std::optional<absl::Time>()> end) {
  MutexLock lock(&mu_);
  certificate_end_ = std::move(end);
}

std::vector<prometheus::MetricFamily> SourcesCollector::Collect() const {
  MutexLock lock(&mu_);
  std::vector<prometheus::MetricFamily> families = {LogLines(), LostLogLines()};
  if (sources_.device_memory) {
    AddDeviceMemory(sources_.device_memory(), sources_.device, &families);
  }
  if (sources_.queue_depth) {
    families.push_back(OneValueFamily("hotlora_queue_depth", "Requests that wait", kGauge, sources_.queue_depth(), {}));
    families.push_back(
        OneValueFamily("hotlora_queue_capacity", "Requests that may wait", kGauge, sources_.queue_capacity, {}));
    families.push_back(OneValueFamily("hotlora_batch_capacity_rows", "Rows that a denoising step may have", kGauge,
                                      sources_.batch_capacity, {}));
  }
  if (disk_free_bytes_.has_value()) {
    families.push_back(OneValueFamily("hotlora_disk_free_bytes", "Free space of a volume", kGauge, *disk_free_bytes_,
                                      {{"volume", "adapters"}}));
  }
  if (const auto end = certificate_end_ ? certificate_end_() : std::nullopt; end.has_value()) {
    families.push_back(OneValueFamily("hotlora_tls_certificate_not_after_timestamp_seconds",
                                      "When the TLS certificate ends, in seconds since the Unix epoch", kGauge,
                                      absl::ToDoubleSeconds(*end - absl::UnixEpoch()), {}));
  }
  return families;
}

}  // namespace hotlora
