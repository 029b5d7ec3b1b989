#include "tests/fakes/sim_device/host_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <vector>

namespace hotlora {
namespace {

struct PinnedBlock {
  size_t bytes = 0;
  std::vector<SimEvent> uses;

  bool idle() const {
    return std::all_of(uses.begin(), uses.end(), [](const SimEvent& use) { return use.stream->done(use.ticket); });
  }
};

struct Blocks {
  std::mutex mutex;
  std::map<char*, PinnedBlock> live, freed;

  // The live block that holds `data`, or end().
  std::map<char*, PinnedBlock>::iterator Find(const void* data) {
    auto* const address = static_cast<char*>(const_cast<void*>(data));
    auto it = live.upper_bound(address);
    if (it == live.begin()) {
      return live.end();
    }
    --it;
    return address < it->first + std::max<size_t>(1, it->second.bytes) ? it : live.end();
  }

  void FreeIdle() {
    for (auto it = freed.begin(); it != freed.end();) {
      const bool idle = it->second.idle();
      if (idle) {
        std::memset(it->first, 0xFF, it->second.bytes);
        std::free(it->first);
      }
      it = idle ? freed.erase(it) : std::next(it);
    }
  }
};

Blocks& TheBlocks() {
  static Blocks* const blocks = new Blocks;
  return *blocks;
}

void FreePinned(void* data) {
  Blocks& blocks = TheBlocks();
  const std::lock_guard lock(blocks.mutex);
  blocks.freed.insert(blocks.live.extract(static_cast<char*>(data)));
  blocks.FreeIdle();
}

class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    Blocks& blocks = TheBlocks();
    const std::lock_guard lock(blocks.mutex);
    blocks.FreeIdle();
    auto* const data = static_cast<char*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096 + 4096));
    TORCH_CHECK_WITH(OutOfMemoryError, data != nullptr, "cannot pin ", bytes, " bytes");
    blocks.live[data] = {bytes, {}};
    return {data, data, &FreePinned, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &FreePinned; }
  void copy_data(void* destination, const void* source, size_t bytes) const override {
    default_copy_data(destination, source, bytes);
  }
};

}  // namespace

c10::Allocator* PinnedAllocator() {
  static Allocator* const allocator = new Allocator;
  return allocator;
}

bool IsPinned(const void* data) {
  Blocks& blocks = TheBlocks();
  const std::lock_guard lock(blocks.mutex);
  return blocks.Find(data) != blocks.live.end();
}

void RecordPinned(const void* data, SimStream& stream) {
  Blocks& blocks = TheBlocks();
  const std::lock_guard lock(blocks.mutex);
  const auto found = blocks.Find(data);
  if (found != blocks.live.end()) {
    found->second.uses.push_back({&stream, stream.last()});
  }
}

}  // namespace hotlora
