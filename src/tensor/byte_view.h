#ifndef HOTLORA_SRC_TENSOR_BYTE_VIEW_H_
#define HOTLORA_SRC_TENSOR_BYTE_VIEW_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace hotlora {

// A contiguous tensor over some bytes of `memory`, uint8. Like at::from_blob, but for any storage and four times as
// fast, which counts where an adapter has thousands of them.
// REQUIRES: the bytes from `offset` on are inside `memory`, and where they begin is aligned for `dtype`.
at::Tensor ViewOf(const at::Tensor& memory, int64_t offset, at::ScalarType dtype, at::IntArrayRef shape);

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_BYTE_VIEW_H_
