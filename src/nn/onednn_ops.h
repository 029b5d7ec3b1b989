#ifndef HOTLORA_SRC_NN_ONEDNN_OPS_H_
#define HOTLORA_SRC_NN_ONEDNN_OPS_H_

// Products with packed and plain weights, and convolutions that add to a sum. oneDNN does what it is faster at on the
// CPU, elsewhere LibTorch's functions do the same (namespace plain). A profiler sees each as one call,
// "hotlora::...".
//
// Dtypes   all tensors of a call alike
// Threads  any; all threads of LibTorch's pool work on one call

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

namespace hotlora {

// x W^T + b. With a packed weight by packed_product.h. With a plain one LibTorch asks MKL in float32, which is made for
// Intel's CPUs; on AMD's, oneDNN computes it if x has at least 16 rows. Measured on Zen 4 and 5 alone.
//
// Shapes   x [..., in]; weight [out, in], plain or packed; bias [out] or undefined; y [..., out], contiguous
at::Tensor Product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// The same into y, which is contiguous.
void ProductInto(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, at::Tensor& y);

// sum += a convolution of x with bias, in float32 without a pass of its own over the sum. In bfloat16 LibTorch refuses
// that on some CPUs, and it was no faster.
//
// Shapes   x [rows, in, height, width]; weight [out, in, kernel, kernel]; bias [out]; sum [rows, out, ...]
// Layout   channels_last for oneDNN
void AddConvolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, c10::IntArrayRef stride,
                    c10::IntArrayRef padding, at::Tensor& sum);

namespace plain {

void AddConvolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, c10::IntArrayRef stride,
                    c10::IntArrayRef padding, at::Tensor& sum);

}  // namespace plain

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_ONEDNN_OPS_H_
