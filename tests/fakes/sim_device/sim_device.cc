#include "tests/fakes/sim_device/sim_device.h"

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string_view>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "tests/fakes/sim_device/counts.h"
#include "tests/fakes/sim_device/crash_stack.h"
#include "tests/fakes/sim_device/device_memory.h"
#include "tests/fakes/sim_device/host_memory.h"
#include "tests/fakes/sim_device/stream.h"

namespace hotlora {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

// A host's wait for `ticket`.
void WaitOnHost(SimStream& stream, uint64_t ticket) {
  CountSim(&SimCounts::synchronizations);
  stream.Wait(ticket);
  ThrowSimError(stream.stream().device_index());
}

// The memory is not given to another stream until the work that is queued on this one is done.
void RecordUse(const c10::DataPtr& data, c10::Stream stream) {
  if (data.get() != nullptr) {
    DeviceMemory::Of(data.device().index()).Record(data.get(), StreamOf(stream));
  }
}

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return kType; }
  c10::Device getDevice() const override { return SimDevice(CurrentSimDevice()); }
  void setDevice(c10::Device device) const override { SetCurrentSimDevice(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { SetCurrentSimDevice(device.index()); }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kSimDevices; }

  c10::Stream getStream(c10::Device device) const override { return CurrentStream(IndexOf(device)).stream(); }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, SimDevice(IndexOf(device)), 0);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool high_priority) const override {
    return PooledSimStream(IndexOf(device), high_priority).stream();
  }
  c10::Stream getNewStream(c10::Device device, int priority) const override {
    return NewSimStream(IndexOf(device)).stream();
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream before = getStream(stream.device());
    SetCurrentStream(stream);
    return before;
  }
  // As a cudaStream_t: the default stream is null.
  void* getStreamNativeHandle(const c10::Stream stream) const override {
    return stream.id() == 0 ? nullptr : &StreamOf(stream);
  }
  bool queryStream(const c10::Stream& stream) const override {
    SimStream& queue = StreamOf(stream);
    queue.Release(queue.last());
    return queue.done(queue.last());
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    SimStream& queue = StreamOf(stream);
    WaitOnHost(queue, queue.last());
  }
  void synchronizeDevice(c10::DeviceIndex device) const override {
    CountSim(&SimCounts::synchronizations);
    WaitForDevice(device);
    ThrowSimError(device);
  }

  void record(void** event, const c10::Stream& stream, c10::DeviceIndex device, c10::EventFlag flag) const override {
    if (*event == nullptr) {
      *event = new SimEvent;
    }
    SimStream& queue = StreamOf(stream);
    SimEvent& point = *static_cast<SimEvent*>(*event);
    point = {&queue, queue.last(), nullptr};
    if (flag == c10::EventFlag::BACKEND_DEFAULT) {  // as CUDA's, it times
      const auto time = std::make_shared<std::chrono::steady_clock::time_point>();
      point.ticket = queue.Enqueue([time] { *time = std::chrono::steady_clock::now(); });
      point.time = time;
    }
  }
  // Milliseconds. Both events are done.
  double elapsedTime(void* begin, void* end, const c10::DeviceIndex device) const override {
    const SimEvent &first = *static_cast<SimEvent*>(begin), &second = *static_cast<SimEvent*>(end);
    TORCH_CHECK(first.time != nullptr && second.time != nullptr, "an event of sim does not time");
    TORCH_CHECK(first.stream->done(first.ticket) && second.stream->done(second.ticket), "an event of sim is not done");
    return std::chrono::duration<double, std::milli>(*second.time - *first.time).count();
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) {
      const SimEvent& point = *static_cast<SimEvent*>(event);
      StreamOf(stream).StartAfter(*point.stream, point.ticket);
    }
  }
  bool queryEvent(void* event) const override {
    if (event == nullptr) {
      return true;
    }
    const SimEvent& point = *static_cast<SimEvent*>(event);
    point.stream->Release(point.ticket);
    return point.stream->done(point.ticket);
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) {
      const SimEvent& point = *static_cast<SimEvent*>(event);
      WaitOnHost(*point.stream, point.ticket);
    }
  }
  void destroyEvent(void* event, c10::DeviceIndex device) const noexcept override {
    delete static_cast<SimEvent*>(event);
  }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override {
    RecordUse(data, stream);
  }

 private:
  static c10::DeviceIndex IndexOf(c10::Device device) {
    return device.has_index() ? device.index() : CurrentSimDevice();
  }
};

void FreeOnDevice(void* data) {
  if (data != nullptr) {
    DeviceMemory::Of(DeviceMemory::OwnerOf(data)).Free(data);
  }
}

// On the current device of the calling thread, as CUDA's.
class Allocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::DeviceIndex device = CurrentSimDevice();
    void* const data = DeviceMemory::Of(device).Allocate(bytes);
    return {data, data, &FreeOnDevice, SimDevice(device)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &FreeOnDevice; }
  void copy_data(void* destination, const void* source, size_t bytes) const override {
    TORCH_CHECK_NOT_IMPLEMENTED(false, "the allocator of sim copies nothing");
  }

  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t pool) override {
    for (c10::DeviceIndex device = 0; device < kSimDevices; ++device) {
      DeviceMemory::Of(device).ReleaseCache();
    }
  }
  void recordStream(const c10::DataPtr& data, c10::Stream stream) override { RecordUse(data, stream); }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    return DeviceMemory::Of(device).stats();
  }
  void resetAccumulatedStats(c10::DeviceIndex device) override {}
  void resetPeakStats(c10::DeviceIndex device) override { DeviceMemory::Of(device).ResetPeak(); }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    return DeviceMemory::Of(device).FreeAndTotal();
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex device) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kSimDevices; }
  void setCurrentDevice(c10::DeviceIndex device) const override { SetCurrentSimDevice(device); }
  c10::DeviceIndex getCurrentDevice() const override { return CurrentSimDevice(); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    const c10::DeviceIndex before = CurrentSimDevice();
    SetCurrentSimDevice(device);
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override { return exchangeDevice(device); }
  // LibTorch seeds it beside the CPU's; no kernel here draws from it.
  const at::Generator& getDefaultGenerator(c10::DeviceIndex device) const override {
    static const auto* const generator = new at::Generator(at::detail::createCPUGenerator());
    return *generator;
  }
  at::Device getDeviceFromPtr(void* data) const override { return SimDevice(DeviceMemory::OwnerOf(data)); }
  bool isPinnedPtr(const void* data) const override { return IsPinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return PinnedAllocator(); }
};

}  // namespace

void RegisterSimDevice() {
  static const bool registered = [] {
    c10::register_privateuse1_backend("sim");
    c10::impl::registerDeviceGuard(kType, new Guard);
    c10::SetAllocator(kType, new Allocator, /*priority=*/0);
    at::RegisterPrivateUse1HooksInterface(new Hooks);
    PrintStackOfCrashes();
    return true;
  }();
  static_cast<void>(registered);
}

namespace {

// A program that this library is preloaded into does not know of it.
const bool preloaded = [] {
  const char* const device = std::getenv("HOTLORA_TEST_DEVICE");
  if (device != nullptr && std::string_view(device).substr(0, 3) == "sim") {
    RegisterSimDevice();
  }
  return true;
}();

}  // namespace

c10::Device SimDevice(int index) { return c10::Device(kType, static_cast<c10::DeviceIndex>(index)); }

void SetSimMemoryLimit(int index, int64_t bytes) {
  DeviceMemory::Of(static_cast<c10::DeviceIndex>(index)).SetLimit(bytes);
}

}  // namespace hotlora
