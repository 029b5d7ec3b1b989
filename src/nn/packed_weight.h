#ifndef HOTLORA_SRC_NN_PACKED_WEIGHT_H_
#define HOTLORA_SRC_NN_PACKED_WEIGHT_H_

// Weights on the CPU in the order in which products read them (packed_product.h), so that no call has to rearrange
// them. A packed weight is a tensor like any other: the order is in its strides.
//
//   plain    [out, in], or [out, in, height, width] of a convolution
//   packed   [out / b, b, in / v, v, height * width], whose elements lie as [out / b][height * width][in / v][b][v]
//
// b outputs make one tile of the result. v values that lie side by side are one operand of the CPU's dot products: 1 in
// float32, 2 in bfloat16 (VNNI, AMX). plain.view(packed.sizes()) has the same elements in the same places. Blocks of a
// packed weight, packed.narrow(0, ...), are packed too.

#include <cstdint>

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

namespace hotlora {

// Whether this CPU has fast products with packed weights of that dtype, asked of LibTorch once.
bool HasPackedProducts(c10::ScalarType dtype);

// An uninitialized packed weight, or an undefined tensor if there are no packed products on the device or a size does
// not fit. `shape` is that of the plain weight; `stacked` of them lie one below the other.
at::Tensor EmptyPacked(at::IntArrayRef shape, const at::TensorOptions& options, int64_t stacked = 1);

inline bool IsPacked(const at::Tensor& weight) { return weight.dim() == 5; }

// How many outputs the weight has, packed or plain.
inline int64_t OutputsOf(const at::Tensor& weight) {
  return IsPacked(weight) ? weight.size(0) * weight.size(1) : weight.size(0);
}

// Whether the weight, packed or plain, can hold what a plain weight of that shape holds.
inline bool IsOfShape(const at::Tensor& weight, at::IntArrayRef shape) {
  return IsPacked(weight) ? OutputsOf(weight) == shape[0] && weight.numel() == c10::multiply_integers(shape)
                          : weight.sizes() == shape;
}

// weight = plain, rounded to the weight's dtype; the very values if the dtypes are alike. The weight is packed or has
// plain's shape; else throws c10::Error. On all threads, from within a parallel loop on the calling one.
void CopyWeight(const at::Tensor& plain, const at::Tensor& weight);

// The same of rows alone, [first, first + plain.size(0)) of the weight, on the calling thread. Both numbers are
// multiples of kRowStep if the weight is packed.
inline constexpr int64_t kRowStep = 16;
void CopyRows(const at::Tensor& plain, int64_t first, const at::Tensor& weight);

// Whether the weight is what CopyWeight makes of `plain`. On any device.
bool IsCopyOf(const at::Tensor& weight, const at::Tensor& plain);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_PACKED_WEIGHT_H_
