#include "tests/fakes/sim_device/device_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include <c10/core/Allocator.h>
#include <c10/util/Exception.h>

#include "tests/fakes/sim_device/counts.h"
#include "tests/fakes/sim_device/sim_device.h"

namespace hotlora {
namespace {

constexpr size_t kAddresses = size_t{16} << 30;
constexpr int kPoison = 0xFF;

// As CUDA's caching allocator has them.
constexpr size_t kRounding = 512, kSmall = size_t{1} << 20, kSmallSegment = size_t{2} << 20, kLarge = size_t{10} << 20,
                 kLargeSegment = size_t{20} << 20;

size_t RoundUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

size_t SegmentBytes(size_t bytes) {
  return bytes <= kSmall ? kSmallSegment : bytes < kLarge ? kLargeSegment : RoundUp(bytes, kSmallSegment);
}

constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

}  // namespace

DeviceMemory& DeviceMemory::Of(c10::DeviceIndex device) {
  static const auto* const devices =
      new std::array<DeviceMemory*, kSimDevices>{new DeviceMemory(0), new DeviceMemory(1)};
  return *devices->at(static_cast<size_t>(device));
}

DeviceMemory::DeviceMemory(c10::DeviceIndex device)
    : device_(device), file_(memfd_create("sim-device", MFD_CLOEXEC)), limit_(kSimMemory) {
  TORCH_CHECK(file_ >= 0 && ftruncate(file_, static_cast<off_t>(kAddresses)) == 0,
              "no memory for sim:", static_cast<int>(device));
  const auto map = [&](int protection) {
    void* const begin = mmap(nullptr, kAddresses, protection, MAP_SHARED | MAP_NORESERVE, file_, 0);
    TORCH_CHECK(begin != MAP_FAILED, "no addresses for sim:", static_cast<int>(device));
    return static_cast<char*>(begin);
  };
  tensors_ = map(PROT_NONE);
  kernels_ = map(PROT_READ | PROT_WRITE);
}

void* DeviceMemory::Allocate(size_t asked) {
  if (asked == 0) {
    return nullptr;
  }
  SimStream& stream = CurrentStream(device_);
  const std::lock_guard lock(mutex_);
  TakeBackPending();
  const size_t bytes = RoundUp(asked, kRounding);
  const bool small = bytes <= kSmall;
  Block* block = FindFree(stream, bytes, small);
  if (block == nullptr) {
    block = AddSegment(stream, bytes, small)->blocks.begin()->second.get();
  }
  Split(block, bytes);
  block->used = true;
  block->asked = asked;
  void* const data = tensors_ + block->begin;
  used_[data] = block;
  CountSim(&SimCounts::allocations);
  stats_.allocation[kAll].increase(1);
  stats_.active[kAll].increase(1);
  stats_.allocated_bytes[kAll].increase(block->bytes);
  stats_.active_bytes[kAll].increase(block->bytes);
  stats_.requested_bytes[kAll].increase(asked);
  c10::reportMemoryUsageToProfiler(data, static_cast<int64_t>(block->bytes),
                                   static_cast<size_t>(stats_.allocated_bytes[kAll].current),
                                   static_cast<size_t>(stats_.reserved_bytes[kAll].current), SimDevice(device_));
  return data;
}

DeviceMemory::Block* DeviceMemory::FindFree(SimStream& stream, size_t bytes, bool small) {
  Block* best = nullptr;
  for (const auto& [begin, segment] : segments_) {
    if (segment->stream != &stream || segment->small != small) {
      continue;
    }
    for (const auto& [at, block] : segment->blocks) {
      if (!block->used && block->bytes >= bytes && (best == nullptr || block->bytes < best->bytes)) {
        best = block.get();
      }
    }
  }
  return best;
}

DeviceMemory::Segment* DeviceMemory::AddSegment(SimStream& stream, size_t bytes, bool small) {
  const size_t size = SegmentBytes(bytes);
  const auto fits = [&] { return stats_.reserved_bytes[kAll].current + static_cast<int64_t>(size) <= limit_; };
  if (!fits()) {
    ReleaseCacheLocked();
    ++stats_.num_alloc_retries;
  }
  if (!fits()) {
    ++stats_.num_ooms;
    TORCH_CHECK_WITH(OutOfMemoryError, false, "sim:", static_cast<int>(device_), " has no ", bytes, " bytes; ",
                     stats_.reserved_bytes[kAll].current, " of ", limit_, " are taken");
  }
  const size_t begin = FindAddresses(size);
  auto segment = std::make_unique<Segment>(Segment{&stream, begin, size, small, {}});
  segment->blocks[begin] = std::make_unique<Block>(Block{segment.get(), begin, size, 0, false, {}});
  Poison(stream, begin, size);
  CountSim(&SimCounts::segments);
  ++stats_.num_device_alloc;
  stats_.segment[kAll].increase(1);
  stats_.reserved_bytes[kAll].increase(size);
  return (segments_[begin] = std::move(segment)).get();
}

size_t DeviceMemory::FindAddresses(size_t bytes) const {
  size_t begin = 0;
  for (const auto& [at, segment] : segments_) {
    if (at - begin >= bytes) {
      break;
    }
    begin = at + segment->bytes;
  }
  TORCH_CHECK(begin + bytes <= kAddresses, "the addresses of sim:", static_cast<int>(device_), " are used up");
  return begin;
}

void DeviceMemory::Split(Block* block, size_t bytes) {
  const size_t rest = block->bytes - bytes;
  if (rest < (block->segment->small ? kRounding : kSmall)) {
    return;
  }
  block->bytes = bytes;
  const size_t begin = block->begin + bytes;
  block->segment->blocks[begin] = std::make_unique<Block>(Block{block->segment, begin, rest, 0, false, {}});
}

void DeviceMemory::Free(void* data) {
  if (data == nullptr) {
    return;
  }
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(data);
  TORCH_INTERNAL_ASSERT(found != used_.end());
  Block* const block = found->second;
  used_.erase(found);
  stats_.allocation[kAll].decrease(1);
  stats_.allocated_bytes[kAll].decrease(block->bytes);
  stats_.requested_bytes[kAll].decrease(block->asked);
  c10::reportMemoryUsageToProfiler(data, -static_cast<int64_t>(block->bytes),
                                   static_cast<size_t>(stats_.allocated_bytes[kAll].current),
                                   static_cast<size_t>(stats_.reserved_bytes[kAll].current), SimDevice(device_));
  if (block->recorded.empty()) {
    GiveBack(block);
    return;
  }
  Pending pending{block, {}};
  for (SimStream* const stream : block->recorded) {
    pending.events.push_back({stream, stream->last()});
  }
  block->recorded.clear();
  pending_.push_back(std::move(pending));
}

void DeviceMemory::GiveBack(Block* block) {
  Segment& segment = *block->segment;
  stats_.active[kAll].decrease(1);
  stats_.active_bytes[kAll].decrease(block->bytes);
  Poison(*segment.stream, block->begin, block->bytes);
  block->used = false;
  auto at = segment.blocks.find(block->begin);
  const auto next = std::next(at);
  if (next != segment.blocks.end() && !next->second->used) {
    block->bytes += next->second->bytes;
    segment.blocks.erase(next);
  }
  if (at != segment.blocks.begin() && !std::prev(at)->second->used) {
    std::prev(at)->second->bytes += block->bytes;
    segment.blocks.erase(at);
  }
}

void DeviceMemory::TakeBackPending() {
  for (auto it = pending_.begin(); it != pending_.end();) {
    const bool done = std::all_of(it->events.begin(), it->events.end(),
                                  [](const SimEvent& event) { return event.stream->done(event.ticket); });
    if (done) {
      GiveBack(it->block);
    }
    it = done ? pending_.erase(it) : std::next(it);
  }
}

void DeviceMemory::Poison(SimStream& stream, size_t begin, size_t bytes) {
  stream.Enqueue([at = kernels_ + begin, bytes] { std::memset(at, kPoison, bytes); });
}

void DeviceMemory::Record(void* data, SimStream& stream) {
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(data);
  if (found != used_.end() && found->second->segment->stream != &stream) {
    found->second->recorded.push_back(&stream);
  }
}

void DeviceMemory::ReleaseCache() {
  const std::lock_guard lock(mutex_);
  ReleaseCacheLocked();
}

// Giving memory back to a device waits for all of its work, on a GPU too.
void DeviceMemory::ReleaseCacheLocked() {
  WaitForDevice(device_);
  TakeBackPending();
  WaitForDevice(device_);
  for (auto it = segments_.begin(); it != segments_.end();) {
    const Segment& segment = *it->second;
    const bool unused = segment.blocks.size() == 1 && !segment.blocks.begin()->second->used;
    if (unused) {
      fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(segment.begin),
                static_cast<off_t>(segment.bytes));
      ++stats_.num_device_free;
      stats_.segment[kAll].decrease(1);
      stats_.reserved_bytes[kAll].decrease(segment.bytes);
    }
    it = unused ? segments_.erase(it) : std::next(it);
  }
}

void DeviceMemory::SetLimit(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  limit_ = bytes;
}

c10::CachingDeviceAllocator::DeviceStats DeviceMemory::stats() {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void DeviceMemory::ResetPeak() {
  const std::lock_guard lock(mutex_);
  for (auto* const figures : {&stats_.allocated_bytes, &stats_.reserved_bytes, &stats_.active_bytes}) {
    figures->at(kAll).reset_peak();
  }
}

std::pair<size_t, size_t> DeviceMemory::FreeAndTotal() {
  const std::lock_guard lock(mutex_);
  const int64_t free = std::max<int64_t>(0, limit_ - stats_.reserved_bytes[kAll].current);
  return {static_cast<size_t>(free), static_cast<size_t>(limit_)};
}

c10::DeviceIndex DeviceMemory::OwnerOf(const void* data) {
  for (c10::DeviceIndex device = 0; device < kSimDevices; ++device) {
    const char* const begin = Of(device).tensors_;
    if (data >= begin && data < begin + kAddresses) {
      return device;
    }
  }
  return -1;
}

void* DeviceMemory::AsKernel(const void* data) {
  if (data == nullptr) {
    return nullptr;
  }
  const c10::DeviceIndex owner = OwnerOf(data);
  TORCH_CHECK(owner >= 0, "an address is not of the device's memory");
  const DeviceMemory& memory = Of(owner);
  return memory.kernels_ + (static_cast<const char*>(data) - memory.tensors_);
}

}  // namespace hotlora
