#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_WEIGHTS_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_WEIGHTS_H_

#include <memory>

#include "absl/status/statusor.h"

#include "src/adapters/adapter_file.h"

namespace hotlora {

struct AdapterWeights;  // nn/lora_delta.h

// Copies a checked adapter out of its file into tensors on the CPU, in the shapes of ModuleDelta,
// contiguous and in the stored dtype (F64 becomes float32, as do OFT's blocks, which become rotations). They hold
// parsed.tensor_bytes bytes, and nothing of the file. ResourceExhausted (OUT_OF_MEMORY) where there is no memory.
absl::StatusOr<std::shared_ptr<const AdapterWeights>> MakeAdapterWeights(const ParsedAdapter& parsed);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_WEIGHTS_H_
