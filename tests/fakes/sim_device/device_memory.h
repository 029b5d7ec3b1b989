#ifndef HOTLORA_TESTS_FAKES_SIM_DEVICE_DEVICE_MEMORY_H_
#define HOTLORA_TESTS_FAKES_SIM_DEVICE_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include <c10/core/CachingDeviceAllocator.h>

#include "tests/fakes/sim_device/stream.h"

namespace hotlora {

// One device's memory, and the allocator that hands it out as CUDA's caching one does: whole segments are taken from
// the device and cut into blocks; a freed block is kept for later work of the stream on which it was allocated, at
// once, because that stream's order protects it. A block that other streams were recorded for comes back after they
// have done what was queued on them.
//
// Two addresses name one byte: the tensors' (no access) and the kernels' (AsKernel).
// Threads  thread-safe
class DeviceMemory {
 public:
  // The memory of sim:`device`. Lives as long as the process.
  static DeviceMemory& Of(c10::DeviceIndex device);

  // For the current stream of this thread. Throws c10::OutOfMemoryError. nullptr for 0 bytes.
  void* Allocate(size_t bytes);
  void Free(void* data);
  void Record(void* data, SimStream& stream);
  void ReleaseCache();
  void SetLimit(int64_t bytes);

  c10::CachingDeviceAllocator::DeviceStats stats();
  void ResetPeak();
  std::pair<size_t, size_t> FreeAndTotal();

  // The kernels' address of a tensors' address of either device. nullptr stays. Throws if it is not device memory.
  static void* AsKernel(const void* data);
  // The device whose memory that is, -1 if none's.
  static c10::DeviceIndex OwnerOf(const void* data);

 private:
  struct Segment;
  struct Block {
    Segment* segment;
    size_t begin, bytes;  // in the device's memory
    size_t asked = 0;
    bool used = false;
    std::vector<SimStream*> recorded;
  };
  struct Segment {
    SimStream* stream;
    size_t begin, bytes;
    bool small;
    std::map<size_t, std::unique_ptr<Block>> blocks;  // by where they begin
  };
  struct Pending {
    Block* block;
    std::vector<SimEvent> events;
  };

  explicit DeviceMemory(c10::DeviceIndex device);
  Block* FindFree(SimStream& stream, size_t bytes, bool small);
  Segment* AddSegment(SimStream& stream, size_t bytes, bool small);
  void Split(Block* block, size_t bytes);
  void GiveBack(Block* block);
  void TakeBackPending();
  void ReleaseCacheLocked();
  void Poison(SimStream& stream, size_t begin, size_t bytes);
  size_t FindAddresses(size_t bytes) const;

  const c10::DeviceIndex device_;
  int file_ = -1;
  char *tensors_ = nullptr, *kernels_ = nullptr;

  std::mutex mutex_;
  int64_t limit_;
  std::map<size_t, std::unique_ptr<Segment>> segments_;  // by where they begin
  std::map<void*, Block*> used_;
  std::list<Pending> pending_;
  c10::CachingDeviceAllocator::DeviceStats stats_;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_SIM_DEVICE_DEVICE_MEMORY_H_
