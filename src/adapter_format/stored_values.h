#ifndef HOTLORA_SRC_ADAPTER_FORMAT_STORED_VALUES_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_STORED_VALUES_H_

// The values inside stored tensors, read from raw bytes of any alignment. No LibTorch here.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "src/weights/safetensors_file.h"

namespace hotlora {

// Whether weights may have this dtype: F32, F16, BF16, F64.
bool IsWeightDtype(StoredDtype dtype);

// Bytes of the tensor once loaded: as stored, except that F64 becomes F32.
uint64_t LoadedBytes(const StoredTensor& tensor);

// Whether every value is finite, for F64 also as F32. REQUIRES: IsWeightDtype; `data` has
// tensor.bytes() bytes.
bool AllFinite(const StoredTensor& tensor, const std::byte* data);

// The value of a tensor with one element, whatever its dimensions; nothing for more elements,
// booleans and 8-bit floats.
std::optional<double> ReadScalar(const StoredTensor& tensor, const std::byte* data);

// Every value as float32. REQUIRES: IsWeightDtype and AllFinite; `data` has tensor.bytes() bytes.
std::vector<float> ReadFloats(const StoredTensor& tensor, const std::byte* data);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_STORED_VALUES_H_
