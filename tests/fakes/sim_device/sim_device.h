#ifndef HOTLORA_TESTS_FAKES_SIM_DEVICE_SIM_DEVICE_H_
#define HOTLORA_TESTS_FAKES_SIM_DEVICE_SIM_DEVICE_H_

// A simulated accelerator: LibTorch's device type PrivateUse1, named "sim", with two devices, sim:0 and sim:1. Code for
// which is_cpu() is false runs on it as it does on a GPU, and mistakes that a GPU forgives most of the time fail on it
// every time.
//
//   Work is late       Each stream has a thread. It runs nothing until something waits for it: the host, or another
//                      stream through an event. So work that no wait orders is always in the wrong order.
//   Memory is apart    Each device's memory is one memfd, mapped twice. Tensors hold addresses of a mapping without
//                      access, where the host crashes with a stack; the streams' threads use the other one.
//   Freed is poison    Freed memory is filled with 0xFF, a NaN in every floating-point dtype, in the order of the
//                      stream on which it was allocated. Fresh memory is poison too.
//   Per thread         Current device and current stream belong to the calling thread, as CUDA's do. A copy or an
//                      operator uses the current stream of its tensors' device.
//   Pinned memory      is a kind of its own: only copies from and to it can leave without a wait.
//   Layouts            native_group_norm returns NCHW whatever its input is.
//   Devices            An operator whose tensors are on different devices throws; a CPU tensor of no dimension is taken
//                      by value.
//
// An operator without a kernel here runs as the CPU's, on its stream's thread. What it returns is allocated at the
// call, in the shapes that its Meta kernel says. Without a Meta kernel, the call waits and is counted under
// DrainedOperators. Queued work holds addresses and no tensors: it keeps no memory alive.
//
// An error on a stream's thread is the device's: each later wait throws c10::AcceleratorError, until ClearSimError.
//
// Threads  all functions are thread-safe. One stream has one queue, whichever thread uses it.

#include <cstdint>
#include <map>
#include <string>

#include <c10/core/Device.h>

namespace hotlora {

// Registers the device with LibTorch. Call it first, once or more. Where HOTLORA_TEST_DEVICE begins with "sim", the
// library does it as it is loaded.
void RegisterSimDevice();

// sim:`index`, 0 or 1.
c10::Device SimDevice(int index = 0);

// What threads asked of the devices. The device's own copies, on its streams' threads, are not counted.
struct SimCounts {
  int64_t launches = 0;          // kernels, and copies inside a device
  int64_t synchronizations = 0;  // waits of the host for a stream, an event or a device
  int64_t blocking_copies = 0;   // copies that the host waits for, .item() among them
  int64_t allocations = 0;       // of tensors' memory on a device
  int64_t segments = 0;          // of these, the ones for which the allocator needed more of the device's memory

  int64_t host_waits() const { return synchronizations + blocking_copies; }
};
SimCounts operator-(const SimCounts& a, const SimCounts& b);

// Since the start of this thread.
SimCounts SimCountsOfThisThread();

// Since the start of the process, by the name of the thread (src/base/named_thread.h); threads of one name together.
std::map<std::string, SimCounts> SimCountsByThread();

// Launches of all threads by operator ("addmm.out") since the start of the process.
std::map<std::string, int64_t> SimLaunches();

// Calls of operators that waited for their stream because LibTorch has no Meta kernel for them, by operator.
std::map<std::string, int64_t> DrainedOperators();

// Limits the memory of a device: what goes beyond throws c10::OutOfMemoryError. At the start it is kSimMemory.
inline constexpr int64_t kSimMemory = int64_t{4} << 30;
void SetSimMemoryLimit(int index, int64_t bytes);

// Waits for all streams of both devices and forgets the devices' errors.
void ClearSimError();

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_SIM_DEVICE_SIM_DEVICE_H_
