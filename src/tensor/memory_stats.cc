#include "src/tensor/memory_stats.h"

#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <limits>
#include <utility>

#include <ATen/Context.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/alignment.h>
#include <c10/core/impl/alloc_cpu.h>

#include "src/base/thread_team.h"

namespace hotlora {
namespace {

std::atomic<int64_t> live_bytes{0};

// Such blocks are mapped one by one where addresses are limited. It costs their pages at every allocation, but freed
// ones never stay behind in pieces that fit no other size.
constexpr int kLargeBlock = 256 << 10;

// Each block begins with its own size, so that freeing one needs no table. As much room as the
// alignment keeps the data aligned, and data pointer = context pointer keeps raw_allocate possible.
constexpr size_t kSizeRoom = c10::gAlignment;

// `change` in bytes of live tensors.
void Count(void* data, int64_t change) {
  const int64_t live = live_bytes.fetch_add(change, std::memory_order_relaxed) + change;
  c10::reportMemoryUsageToProfiler(data, change, static_cast<size_t>(live), 0, c10::Device(c10::kCPU));
}

void Free(void* data) {
  if (data == nullptr) {
    return;
  }
  char* const block = static_cast<char*>(data) - kSizeRoom;
  Count(data, -static_cast<int64_t>(*reinterpret_cast<size_t*>(block)));
  c10::free_cpu(block);
}

class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = nullptr;
    if (bytes > 0) {
      char* const block = Allocate(bytes);
      *reinterpret_cast<size_t*>(block) = bytes;
      data = block + kSizeRoom;
      Count(data, static_cast<int64_t>(bytes));
    }
    return {data, data, &Free, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &Free; }

  void copy_data(void* destination, const void* source, size_t bytes) const override {
    default_copy_data(destination, source, bytes);
  }

 private:
  // LibTorch's own CPU allocator throws a plain c10::Error for want of memory, which no one can
  // tell from a bug.
  static char* Allocate(size_t bytes) {
    constexpr size_t kMost = static_cast<size_t>(std::numeric_limits<ptrdiff_t>::max()) - kSizeRoom;
    try {
      if (bytes <= kMost) {
        return static_cast<char*>(c10::alloc_cpu(bytes + kSizeRoom));
      }
    } catch (const c10::Error&) {
    }
    TORCH_CHECK_WITH(OutOfMemoryError, false, "cannot allocate ", bytes, " bytes on the CPU");
  }
};

}  // namespace

void InstallCountingCpuAllocator() {
  if (AddressesAreLimited()) {
    mallopt(M_MMAP_THRESHOLD, kLargeBlock);
  }
  constexpr uint8_t kAboveLibTorchsOwn = 200;
  // Never destroyed: tensors with static life may outlive everything.
  static CountingAllocator* const allocator = new CountingAllocator;
  c10::SetCPUAllocator(allocator, kAboveLibTorchsOwn);
}

at::Tensor CountedView(std::shared_ptr<char> memory, int64_t offset, int64_t bytes) {
  char* const begin = memory.get() + offset;
  const auto let_go = [memory = std::move(memory), bytes](void*) {
    live_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  };
  at::Tensor view = at::from_blob(begin, {bytes}, let_go, at::kByte);
  live_bytes.fetch_add(bytes, std::memory_order_relaxed);
  return view;
}

MemoryStats GetMemoryStats(c10::Device device) {
  MemoryStats stats;
  if (device.is_cpu()) {
    stats.allocated = live_bytes.load(std::memory_order_relaxed);
    stats.reserved = stats.allocated;
    return stats;
  }
  if (device.is_cuda() && !at::hasCUDA()) {
    return stats;
  }
  auto* const allocator = c10::getDeviceAllocator(device.type());
  if (!allocator->initialized()) {
    return stats;  // nothing was ever allocated there
  }
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto figures = allocator->getDeviceStats(device.has_index() ? device.index() : c10::DeviceIndex{0});
  stats.allocated = figures.allocated_bytes[kAll].current;
  stats.reserved = figures.reserved_bytes[kAll].current;
  stats.inactive_split = figures.inactive_split_bytes[kAll].current;
  stats.peak_allocated = figures.allocated_bytes[kAll].peak;
  stats.active = figures.active_bytes[kAll].current;
  stats.requested = figures.requested_bytes[kAll].current;
  stats.segments = figures.segment[kAll].current;
  stats.retries = figures.num_alloc_retries;
  stats.failures = figures.num_ooms;
  stats.taken = figures.num_device_alloc;
  stats.returned = figures.num_device_free;
  return stats;
}

}  // namespace hotlora
