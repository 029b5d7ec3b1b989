#include "tests/gpu/gpu_watch.h"

#include <utility>

#include "absl/time/time.h"

#include "tests/gpu/cuda_runtime.h"

namespace hotlora {
namespace {

// nvmlClocksEventReasons.
constexpr std::pair<uint64_t, const char*> kReasons[] = {
    {0x1, "idle"},        {0x2, "application clocks"}, {0x4, "power cap"},      {0x8, "hardware slowdown"},
    {0x10, "sync boost"}, {0x20, "software thermal"},  {0x40, "hardware heat"}, {0x80, "power brake"},
    {0x100, "display"},
};

void Keep(std::optional<double> value, double unit, std::vector<double>* values) {
  if (value.has_value()) {
    values->push_back(*value / unit);
  }
}

}  // namespace

GpuWatch::GpuWatch(Probe& probe) : probe_(probe) {
  if (probe.device().is_cpu()) {
    return;
  }
  const std::vector<NvmlDevice> devices = nvml_.Devices();
  if (devices.empty()) {
    probe.LeaveOut("gpu.clocks", "NVML (libnvidia-ml.so.1) is not there, or knows no GPU");
    return;
  }
  const auto bus = probe.device().is_cuda() ? cuda_runtime::PciBusId(probe.device()) : std::nullopt;
  device_ = bus.has_value() ? nvml_.DeviceOnBus(*bus) : devices.front();
  if (device_ == nullptr) {
    probe.LeaveOut("gpu.clocks", "NVML does not know the GPU at " + *bus);
    return;
  }
  probe.AddNote("gpu", {{"name", nvml_.Name(device_)}, {"driver", nvml_.Driver()}, {"pci_bus_id", bus.value_or("")}});
  Read();
  thread_.emplace("gpu-watch", absl::Milliseconds(100), [this] { Read(); });
}

GpuWatch::~GpuWatch() {
  if (device_ == nullptr) {
    return;
  }
  thread_.reset();
  Read();
  const auto add = [&](const char* name, const char* unit, const std::vector<double>& values) {
    if (values.empty()) {
      probe_.LeaveOut(name, "NVML does not say");
    } else {
      probe_.AddFigure(name, unit, values);
    }
  };
  add("gpu.sm_clock", "MHz", sm_clock_);
  add("gpu.memory_clock", "MHz", memory_clock_);
  add("gpu.power", "W", power_);
  add("gpu.temperature", "C", temperature_);
  nlohmann::ordered_json shares = nlohmann::ordered_json::object();
  for (const auto& [reason, count] : reasons_) {
    shares[reason] = static_cast<double>(count) / readings_;
  }
  probe_.AddNote("throttle_reasons", shares);
}

void GpuWatch::Read() {
  ++readings_;
  Keep(nvml_.SmClockHertz(device_), 1e6, &sm_clock_);
  Keep(nvml_.MemoryClockHertz(device_), 1e6, &memory_clock_);
  Keep(nvml_.PowerWatts(device_), 1, &power_);
  Keep(nvml_.Temperature(device_), 1, &temperature_);
  const uint64_t reasons = nvml_.ThrottleReasons(device_).value_or(0);
  for (const auto& [bit, name] : kReasons) {
    if ((reasons & bit) != 0) {
      ++reasons_[name];
    }
  }
}

}  // namespace hotlora
