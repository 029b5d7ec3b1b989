#ifndef HOTLORA_SRC_TENSOR_TENSOR_FWD_H_
#define HOTLORA_SRC_TENSOR_TENSOR_FWD_H_

// Names of LibTorch types for headers that only mention them: 0.04 s to parse, against 2.7 s for ATen/core/Tensor.h.

namespace at {
class Tensor;
}  // namespace at

#endif  // HOTLORA_SRC_TENSOR_TENSOR_FWD_H_
