#ifndef HOTLORA_SRC_TENSOR_TENSOR_DIGEST_H_
#define HOTLORA_SRC_TENSOR_TENSOR_DIGEST_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace hotlora {

// Two sums of a tensor's words modulo 2^64, one weighted by the column and one by the row. A changed bit, or two words
// that changed places, change one of them. It finds faults of memory, not an attacker.
struct TensorDigest {
  int64_t by_column = 0;
  int64_t by_row = 0;

  friend bool operator==(const TensorDigest& a, const TensorDigest& b) {
    return a.by_column == b.by_column && a.by_row == b.by_row;
  }
  friend bool operator!=(const TensorDigest& a, const TensorDigest& b) { return !(a == b); }
};

// The digest of the exact bytes of `tensor`, in its own dtype. It is computed where the tensor lies, reads it twice,
// allocates next to nothing, and waits for the result. Equal on every device.
// REQUIRES: contiguous.
TensorDigest DigestOf(const at::Tensor& tensor);

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_TENSOR_DIGEST_H_
