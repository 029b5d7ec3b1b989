#ifndef HOTLORA_SRC_NN_CONV2D_H_
#define HOTLORA_SRC_NN_CONV2D_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "src/nn/parameter_source.h"
#include "src/nn/side_branch.h"
#include "src/tensor/threads_for.h"

namespace hotlora {

struct Conv2dOptions {
  int64_t in = 0;
  int64_t out = 0;
  int64_t kernel = 3;  // square
  int64_t stride = 1;
  int64_t padding = 1;  // zeros on all four sides
  // Packed pays where a picture has few pixels, so that the weights are most of what a call reads: LibTorch's operator
  // rearranges plain ones in each call, but is faster at the rest (docs/performance.md).
  WeightOrder order = WeightOrder::kPlain;
};

// A two-dimensional convolution with bias, and with a side branch what adapters add.
//
// Shapes   x [rows, in, height, width]; weight [out, in, kernel, kernel], plain or packed; y [rows, out, ...]
// Layout   x, a plain weight and y are channels_last: [rows, height, width, channels] in memory
// Dtypes   alike
// Threads  const
struct Conv2d {
  Conv2d() = default;
  Conv2d(const ParameterScope& scope, const Conv2dOptions& options);
  at::Tensor forward(const at::Tensor& x, SideBranch side = {}) const;

  // sum += forward(x), without a pass of its own over the sum if LibTorch has one (AddConvolution).
  void forward_add(const at::Tensor& x, at::Tensor& sum, SideBranch side = {}) const;

  at::Tensor weight;  // their storage is the module's live parameters: adapters rebuild it in place
  at::Tensor bias;
  size_t module = AdaptableParameter::kNotListed;
  Conv2dOptions options;

 private:
  ThreadsFor ThreadsForConvolution(const at::Tensor& x) const;
  void AddSide(SideBranch side, const at::Tensor& x, at::Tensor& y) const;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_CONV2D_H_
