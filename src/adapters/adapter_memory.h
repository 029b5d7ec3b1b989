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
  // Makes the block. To be called at most once, while the ParsedAdapter lives.
  std::function<absl::StatusOr<std::shared_ptr<const AdapterWeights>>()> place;
};

// Where adapters lie: blocks in the host's memory, and one storage of fixed size on the device.
// Threads  thread-safe
// Errors   ResourceExhausted (OUT_OF_MEMORY) where there is no memory
class AdapterMemory {
 public:
  virtual ~AdapterMemory() = default;

  // Bytes of the storage on the device, allocated when this was made. 0: there is none; adapters are used from the
  // host.
  virtual uint64_t device_bytes() const = 0;

  virtual absl::StatusOr<StagedAdapter> Stage(const ParsedAdapter& parsed) = 0;

  // Copies an adapter of the host tier, a block of `bytes`, to `offset` of the device's storage, and waits until it is
  // there.
  // REQUIRES: the storage has that room, and nobody uses it.
  virtual absl::StatusOr<std::shared_ptr<const AdapterWeights>> Upload(
      const std::shared_ptr<const AdapterWeights>& hosted, uint64_t offset, uint64_t bytes) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_MEMORY_H_
