#include "tests/fakes/sim_device/stream.h"

#include <pthread.h>

#include <array>
#include <exception>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include "tests/fakes/sim_device/sim_device.h"

namespace hotlora {
namespace {

// A real device's queue has an end too.
constexpr uint64_t kMostQueued = 20000;

// Stream 0 is the default one, then come the pools of normal and high priority.
constexpr c10::StreamId kPooled = 32, kFirstOfNormal = 1, kFirstOfHigh = 33, kFirstNew = 65;

struct DeviceState {
  std::mutex mutex;
  std::map<c10::StreamId, SimStream*> streams;
  c10::StreamId next = kFirstNew, next_normal = 0, next_high = 0;
  std::string error;  // the first
};

DeviceState& StateOf(c10::DeviceIndex device) {
  static auto* const states = new std::array<DeviceState, kSimDevices>;
  return states->at(static_cast<size_t>(device));
}

thread_local c10::DeviceIndex current_device = 0;
thread_local std::array<c10::StreamId, kSimDevices> current_streams{};

std::vector<SimStream*> StreamsOf(c10::DeviceIndex device) {
  DeviceState& state = StateOf(device);
  const std::lock_guard lock(state.mutex);
  std::vector<SimStream*> streams;
  for (const auto& [id, stream] : state.streams) {
    streams.push_back(stream);
  }
  return streams;
}

}  // namespace

SimStream::SimStream(c10::Stream stream) : stream_(stream) { std::thread(&SimStream::Run, this).detach(); }

uint64_t SimStream::Enqueue(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  queue_.push_back(std::move(work));
  ++queued_;
  if (queued_ - done_ > kMostQueued) {
    released_ = std::max(released_, queued_ - kMostQueued);
    changed_.notify_all();
  }
  return queued_;
}

uint64_t SimStream::last() const {
  const std::lock_guard lock(mutex_);
  return queued_;
}

bool SimStream::done(uint64_t ticket) const {
  const std::lock_guard lock(mutex_);
  return done_ >= ticket;
}

void SimStream::Release(uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  released_ = std::max(released_, ticket);
  changed_.notify_all();
}

void SimStream::Wait(uint64_t ticket) {
  Release(ticket);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= ticket; });
}

void SimStream::StartAfter(SimStream& other, uint64_t ticket) {
  if (&other != this) {
    Enqueue([&other, ticket] { other.Wait(ticket); });
  }
}

void SimStream::Run() {
  pthread_setname_np(pthread_self(), "sim-stream");
  at::set_num_threads(1);
  const c10::InferenceMode inference;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return done_ < released_; });
    const std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    try {
      work();
    } catch (const std::exception& error) {
      DeviceState& state = StateOf(stream_.device_index());
      const std::lock_guard state_lock(state.mutex);
      if (state.error.empty()) {
        state.error = error.what();
      }
    }
    lock.lock();
    ++done_;
    changed_.notify_all();
  }
}

SimStream& StreamOf(c10::Stream stream) {
  DeviceState& state = StateOf(stream.device_index());
  const std::lock_guard lock(state.mutex);
  SimStream*& known = state.streams[stream.id()];
  if (known == nullptr) {
    known = new SimStream(stream);
  }
  return *known;
}

SimStream& NewSimStream(c10::DeviceIndex device) {
  DeviceState& state = StateOf(device);
  c10::StreamId id = 0;
  {
    const std::lock_guard lock(state.mutex);
    id = state.next++;
  }
  return StreamOf(c10::Stream(c10::Stream::UNSAFE, SimDevice(device), id));
}

SimStream& PooledSimStream(c10::DeviceIndex device, bool high_priority) {
  DeviceState& state = StateOf(device);
  c10::StreamId id = 0;
  {
    const std::lock_guard lock(state.mutex);
    id = high_priority ? kFirstOfHigh + state.next_high++ % kPooled : kFirstOfNormal + state.next_normal++ % kPooled;
  }
  return StreamOf(c10::Stream(c10::Stream::UNSAFE, SimDevice(device), id));
}

SimStream& CurrentStream(c10::DeviceIndex device) {
  return StreamOf(c10::Stream(c10::Stream::UNSAFE, SimDevice(device), current_streams.at(static_cast<size_t>(device))));
}

void SetCurrentStream(c10::Stream stream) {
  current_streams.at(static_cast<size_t>(stream.device_index())) = stream.id();
}

c10::DeviceIndex CurrentSimDevice() { return current_device; }

void SetCurrentSimDevice(c10::DeviceIndex device) {
  TORCH_CHECK(device >= 0 && device < kSimDevices, "sim:", static_cast<int>(device), " is not there; there are ",
              kSimDevices, " devices");
  current_device = device;
}

void WaitForDevice(c10::DeviceIndex device) {
  for (SimStream* const stream : StreamsOf(device)) {
    stream->Wait(stream->last());
  }
}

void ThrowSimError(c10::DeviceIndex device) {
  DeviceState& state = StateOf(device);
  const std::lock_guard lock(state.mutex);
  if (!state.error.empty()) {
    constexpr int32_t kLaunchFailure = 719;  // CUDA's; the device is lost
    throw c10::AcceleratorError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, kLaunchFailure, state.error);
  }
}

void ClearSimError() {
  for (c10::DeviceIndex device = 0; device < kSimDevices; ++device) {
    WaitForDevice(device);
    DeviceState& state = StateOf(device);
    const std::lock_guard lock(state.mutex);
    state.error.clear();
  }
}

}  // namespace hotlora
