#ifndef HOTLORA_SRC_NN_PACKED_PRODUCT_H_
#define HOTLORA_SRC_NN_PACKED_PRODUCT_H_

// Products and convolutions with packed weights (packed_weight.h) on the CPU, by tiles: oneDNN's batch-reduce product
// (LibTorch's cpublas::brgemm) of some rows by one block of outputs, over some inputs at a time, so that what it reads
// of the weights stays in the cache.
//
// Dtypes   all tensors of a call alike, float32 or bfloat16; sums are float32 and are rounded once
// Threads  any; all threads of LibTorch's pool work on one call. The result does not depend on their number
// Rows     independent: the bytes of a row do not depend on the others
// Memory   y shares none with the others
// Errors   c10::Error if shapes or dtypes disagree; std::exception if oneDNN cannot make its code
// Source   Georganas et al. 2020, arXiv 1906.06440 (batch-reduce products)

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace hotlora {

// y = x W^T + b.
//
// Shapes   x [rows, in]; weight packed; bias [out] or undefined; y [rows, out]
// Layout   the last dimension of x and y and the bias contiguous
void PackedProductInto(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& y);

struct Window {
  int64_t kernel = 3;  // square
  int64_t stride = 1;
  int64_t padding = 1;  // zeros on all four sides
};

enum class Result { kNew, kSum };

// y = a convolution of x, or y += it.
//
// Shapes   x [rows, in, height, width]; weight packed; bias [out]; y [rows, out, ...]
// Layout   x and y channels_last
void PackedConvolutionInto(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const Window& window,
                           Result result, const at::Tensor& y);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_PACKED_PRODUCT_H_
