#ifndef HOTLORA_SRC_NN_FUSED_OPS_H_
#define HOTLORA_SRC_NN_FUSED_OPS_H_

// Operators between the products and convolutions of a network, each in one call. On the CPU, in float32 and
// bfloat16, the loops are ours (fused_kernels.h). Elsewhere, in float16 (which CPUs convert too slowly to gain by it),
// and for layouts other than those named, LibTorch's operators do the same one after the other (namespace plain). A
// profiler sees each of ours as one call, "hotlora::...".
//
// Dtypes   all tensors of a call alike: float32, bfloat16 or float16; statistics in float32 or better
// Threads  any; all threads of LibTorch's pool work on one call. The result does not depend on their number
// Rows     independent: the bytes of a row do not depend on the others

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace hotlora {

struct GroupNormOptions {
  int64_t groups = 0;
  double epsilon = 0.0;
  bool silu = false;  // silu of the result
};

// Group norm of x + shift. With a shift, x may be overwritten.
//
// Shapes   x, y [rows, channels, height, width]; shift [rows, channels] or undefined; weight, bias [channels]
// Layout   x channels_last, each row of shift contiguous, for ours
// Source   Wu and He 2018, arXiv 1803.08494
at::Tensor FusedGroupNorm(at::Tensor x, const at::Tensor& shift, const at::Tensor& weight, const at::Tensor& bias,
                          const GroupNormOptions& options);

// x += added; the result is the layer norm of the new x. `added` shares no memory with x.
//
// Shapes   x, added, y [..., width]; weight, bias [width]
// Layout   contiguous for ours
// Source   Ba et al. 2016, arXiv 1607.06450
at::Tensor AddLayerNorm(at::Tensor& x, const at::Tensor& added, const at::Tensor& weight, const at::Tensor& bias,
                        double epsilon);

// The first half of the last dimension times the exact GELU of the second.
//
// Shapes   both [..., 2 * hidden]; y [..., hidden]
// Layout   contiguous for ours
// Source   Shazeer 2020, arXiv 2002.05202
at::Tensor Geglu(const at::Tensor& both);

// The same by LibTorch's operators: what the others must be equal to, up to rounding.
namespace plain {
at::Tensor FusedGroupNorm(at::Tensor x, const at::Tensor& shift, const at::Tensor& weight, const at::Tensor& bias,
                          const GroupNormOptions& options);
at::Tensor AddLayerNorm(at::Tensor& x, const at::Tensor& added, const at::Tensor& weight, const at::Tensor& bias,
                        double epsilon);
at::Tensor Geglu(const at::Tensor& both);
}  // namespace plain

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_FUSED_OPS_H_
