#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_MEMORY_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_MEMORY_H_

// The border between an adapter's life cycle, which counts bytes, and its tensors. No LibTorch here.

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"

namespace hotlora {

struct AdapterWeights;  // nn/lora_delta.h
struct ParsedAdapter;   // adapter_file.h

// A checked adapter on its way into the host tier.
struct StagedAdapter {
  uint64_t bytes = 0;  // of its block, in the host tier and on the device alike
  // Lays it out in the block of so many bytes at an offset of the host's storage. To be called at most once, while the
  // ParsedAdapter lives.
  // REQUIRES: the storage has that room, and no other adapter uses it.
  std::function<absl::StatusOr<std::shared_ptr<const AdapterWeights>>(uint64_t offset)> lay_out;
};

// The memory that holds adapters: one storage of fixed size on the host and one on the device, both made with this
// object. An adapter has a block of each, the same bytes in both, so adapters that come and go allocate nothing.
// resident_tier.h chooses the offsets, and blocks never overlap. What is returned may outlive this object.
// Threads  thread-safe
// Errors   ResourceExhausted (OUT_OF_MEMORY) if there is no memory
class AdapterMemory {
 public:
  virtual ~AdapterMemory() = default;

  virtual uint64_t host_bytes() const = 0;

  // 0: there is no storage on the device; adapters are used from the host.
  virtual uint64_t device_bytes() const = 0;

  // Finds out how many bytes the adapter needs. Nothing is allocated that outlives the result. FailedPrecondition
  // (ADAPTER_INVALID) if only its tensors show that it is not sound.
  virtual absl::StatusOr<StagedAdapter> Stage(const ParsedAdapter& parsed) = 0;

  // Copies an adapter of the host tier, a block of `bytes`, to `offset` of the device's storage, and waits until it is
  // there.
  // REQUIRES: the storage has that room, and no other adapter uses it.
  virtual absl::StatusOr<std::shared_ptr<const AdapterWeights>> Upload(
      const std::shared_ptr<const AdapterWeights>& hosted, uint64_t offset, uint64_t bytes) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_MEMORY_H_
