#ifndef HOTLORA_SRC_NN_ATTENTION_TILES_H_
#define HOTLORA_SRC_NN_ATTENTION_TILES_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace hotlora {

// softmax(q k^T / sqrt(head size)) v for each head on the CPU: a tile of queries by one block of keys after the other,
// by the same products as in packed_product.h. Scores never leave the cache.
//
// Shapes   q, y [rows, tokens, heads * size]; k, v [rows, context tokens, heads * size]
// Layout   the last dimension contiguous; slices of a wider tensor will do
// Dtypes   alike, float32 or bfloat16; scores and sums are float32, what weighs the values is rounded to the dtype
// Threads  any; all threads of LibTorch's pool work on one call. The result does not depend on their number
// Rows     independent: the bytes of a row do not depend on the others
// Source   Dao et al. 2022, arXiv 2205.14135 (softmax by blocks)
void AttendByTiles(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads, const at::Tensor& y);

// Whether it can be called with these: heads as wide as a UNet's, of a dtype that this CPU has such products for.
bool CanAttendByTiles(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_ATTENTION_TILES_H_
