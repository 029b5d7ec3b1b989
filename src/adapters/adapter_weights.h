#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_WEIGHTS_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_WEIGHTS_H_

// The tensors of adapters: the one part of adapters/ that knows LibTorch.

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "src/adapter_format/adapter_file.h"
#include "src/adapters/adapter_memory.h"
#include "src/tensor/device.h"

namespace hotlora {

// A checked adapter as tensors in the shapes of ModuleDelta, contiguous and in the stored dtype (F64 becomes float32,
// as do OFT's blocks, which become rotations). They are views of the file's bytes if those are aligned: `parsed`
// outlives them. FailedPrecondition (ADAPTER_INVALID) if an OFT's blocks are too large to become rotations;
// ResourceExhausted (OUT_OF_MEMORY).
absl::StatusOr<AdapterWeights> ViewAdapter(const ParsedAdapter& parsed);

// Memory for adapters of networks at `place`: blocks (nn/block_layout.h) of `host_bytes` of the host
// (tensor/host_slab.h) and of `device_bytes` of the device, allocated now.
absl::StatusOr<std::unique_ptr<AdapterMemory>> MakeAdapterMemory(ComputePlace place, uint64_t host_bytes,
                                                                 uint64_t device_bytes);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_WEIGHTS_H_
