#ifndef HOTLORA_TESTS_FAKES_SIM_DEVICE_STREAM_H_
#define HOTLORA_TESTS_FAKES_SIM_DEVICE_STREAM_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include <c10/core/Stream.h>

namespace hotlora {

constexpr int kSimDevices = 2;

// One stream: a queue and a thread that works it off in order, as late as it may. Lives as long as the process.
//
// Tickets count what was queued; ticket 0 is done from the start.
// Threads  thread-safe
class SimStream {
 public:
  explicit SimStream(c10::Stream stream);

  c10::Stream stream() const { return stream_; }

  // Queues work; returns its ticket. The work may throw: see Wait.
  uint64_t Enqueue(std::function<void()> work);
  // The ticket of what was queued last.
  uint64_t last() const;
  bool done(uint64_t ticket) const;

  // Lets the thread run up to `ticket`, and does not wait.
  void Release(uint64_t ticket);
  // Lets the thread run up to `ticket`, and waits for it.
  void Wait(uint64_t ticket);
  // What is queued here from now on begins after `ticket` of `other` is done.
  void StartAfter(SimStream& other, uint64_t ticket);

 private:
  void Run();

  const c10::Stream stream_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  uint64_t queued_ = 0, released_ = 0, done_ = 0;
};

// A point in a stream's queue.
struct SimEvent {
  SimStream* stream = nullptr;
  uint64_t ticket = 0;
  // When the stream came there; empty for an event that does not time.
  std::shared_ptr<const std::chrono::steady_clock::time_point> time;
};

// The stream of this name; made with its thread at the first call.
SimStream& StreamOf(c10::Stream stream);
// A stream that nothing else uses.
SimStream& NewSimStream(c10::DeviceIndex device);
// The next of the device's 32 streams of a priority, in turn, as CUDA's pool gives them.
SimStream& PooledSimStream(c10::DeviceIndex device, bool high_priority);

// Current stream of this thread for the device, at first its default stream (id 0).
SimStream& CurrentStream(c10::DeviceIndex device);
void SetCurrentStream(c10::Stream stream);
// Current device of this thread, at first 0.
c10::DeviceIndex CurrentSimDevice();
void SetCurrentSimDevice(c10::DeviceIndex device);

// Waits for all that is queued on a device. Does not throw.
void WaitForDevice(c10::DeviceIndex device);

// Throws the device's error, if it has one.
void ThrowSimError(c10::DeviceIndex device);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_SIM_DEVICE_STREAM_H_
