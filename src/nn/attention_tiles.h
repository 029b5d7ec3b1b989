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
// Dtypes   alike, float32 or bfloat16. Scores and sums are float32; the softmax's weights are rounded to the dtype
//          before they are multiplied by the values
// Threads  any; all threads of LibTorch's pool work on one call. The result does not depend on their number
// Rows     independent: the bytes of a row do not depend on the others
// Errors   c10::Error if CanAttendByTiles says no or shapes disagree; std::exception if oneDNN cannot make its code
// Source   Dao et al. 2022, arXiv 2205.14135 (softmax by blocks)
void AttendByTiles(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads, const at::Tensor& y);

// Whether it can be called with these: on the CPU, in a dtype that it has packed products for, heads of an even width
// up to 160, even strides, and at least one query and one key.
bool CanAttendByTiles(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_ATTENTION_TILES_H_
