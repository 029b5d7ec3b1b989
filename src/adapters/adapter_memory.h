#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_MEMORY_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_MEMORY_H_

// The border between an adapter's life cycle, which counts bytes, and its tensors. No LibTorch here.

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"

#include "src/adapters/adapter_lease.h"

namespace hotlora {

struct ParsedAdapter;  // adapter_file.h

// A checked adapter, or one of another kind, on its way into the host tier.
struct StagedAdapter {
  uint64_t bytes = 0;  // of its block, in the host tier and on the device alike
  // Lays it out in the block of so many bytes at an offset of the host's storage. To be called at most once, while the
  // file lives.
  // REQUIRES: the storage has that room, and no other adapter uses it.
  std::function<absl::StatusOr<HeldWeights>(uint64_t offset)> lay_out;
};

// The memory of a store: one storage of fixed size on the host and one on the device, both made with this
// object. Each adapter has a block of each, the same bytes in both, so adapters that come and go allocate nothing.
// resident_tier.h chooses the offsets, and blocks never overlap. What is returned may outlive this object.
// Threads  thread-safe
// Errors   ResourceExhausted (OUT_OF_MEMORY) if there is no memory
class StoreMemory {
 public:
  virtual ~StoreMemory() = default;

  virtual uint64_t host_bytes() const = 0;

  // 0: there is no storage on the device; adapters are used from the host.
  virtual uint64_t device_bytes() const = 0;

  // Copies an adapter of the host tier, a block of `bytes`, to `offset` of the device's storage, and waits until it is
  // there.
  // REQUIRES: the storage has that room, and no other adapter uses it.
  virtual absl::StatusOr<HeldWeights> Upload(const HeldWeights& hosted, uint64_t offset, uint64_t bytes) = 0;
};

class AdapterMemory : public StoreMemory {
 public:
  // Finds out how many bytes the adapter needs. Nothing is allocated that outlives the result. FailedPrecondition
  // (ADAPTER_INVALID) if only its tensors show that it is not sound.
  virtual absl::StatusOr<StagedAdapter> Stage(const ParsedAdapter& parsed) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_MEMORY_H_
