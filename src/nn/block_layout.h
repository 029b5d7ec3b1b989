#ifndef HOTLORA_SRC_NN_BLOCK_LAYOUT_H_
#define HOTLORA_SRC_NN_BLOCK_LAYOUT_H_

// An adapter in one block of memory, laid out as the device computes with it, so that an upload is one copy:
//
//   the downs of all low-rank changes in the order of the module table (so that those of a stack, q k v, lie one behind
//   the other and one product computes them), then their ups, then everything else
//
// Ranks are padded to a multiple of kRankStep by zeros, which add nothing. A LoHa of small rank becomes low-rank here,
// exactly, by the face-splitting product: (B1 A1) o (B2 A2) = B A with B[o, ij] = B1[o, i] B2[o, j] and
// A[ij, c] = A1[i, c] A2[j, c].

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

#include "src/nn/lora_delta.h"

namespace hotlora {

inline constexpr int64_t kRankStep = 8;

// The largest rank that a LoHa may have as low-rank change; beyond, it stays what it is, and is merged.
inline constexpr int64_t kMaxFaceSplitRank = 64;

// Which dtype low-rank changes have in a block. Everything else keeps its stored dtype.
enum class BlockDtype {
  kFloat,    // for networks in float32: the side branch multiplies as it is
  kAsStored  // for half types
};

// Bytes of the block that LayOut fills, a multiple of 64.
int64_t BlockBytes(const AdapterWeights& stored, BlockDtype dtype);

// Copies `stored` (on the CPU) into `block`: uint8 [BlockBytes], on the CPU. The result's tensors are views of it.
std::shared_ptr<const AdapterWeights> LayOut(const AdapterWeights& stored, BlockDtype dtype, const at::Tensor& block);

// Copies the block of `laid_out` to `offset` (a multiple of 64) of `slab`, uint8, on any device. The result's tensors
// are views of the slab. Does not wait for the copy.
std::shared_ptr<const AdapterWeights> CopyToSlab(const AdapterWeights& laid_out, const at::Tensor& slab,
                                                 int64_t offset);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_BLOCK_LAYOUT_H_
