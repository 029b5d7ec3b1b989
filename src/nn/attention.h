#ifndef HOTLORA_SRC_NN_ATTENTION_H_
#define HOTLORA_SRC_NN_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "src/nn/linear.h"
#include "src/nn/parameter_source.h"

namespace hotlora {

// softmax(q k^T / sqrt(head size)) v for each head.
//
// Shapes   q [rows, tokens, heads * size]; k, v [rows, context tokens, heads * size]; result as q
// Masking  causal: token i sees tokens 0 to i (text encoders)
// Dtypes   alike; the softmax is computed in float32
// Source   Vaswani et al. 2017, arXiv 1706.03762, section 3.2; heads are views, nothing is copied
// around the kernel
enum class Masking { kNone, kCausal };
at::Tensor AttendHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                       Masking masking = Masking::kNone);

struct AttentionOptions {
  int64_t width = 0;          // of x and of the result
  int64_t context_width = 0;  // of what is attended to; for self-attention the width
  int64_t heads = 0;          // divides width
  Linear::Bias qkv_bias = Linear::Bias::kNone;
};

// Attention with diffusers' names: to_q, to_k, to_v, to_out.0.
//
// Shapes   x [rows, tokens, width]; context [rows, context tokens, context width]; result as x
// Threads  const
struct Attention {
  Attention() = default;
  Attention(const ParameterScope& scope, const AttentionOptions& options);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& context) const;

  Linear to_q, to_k, to_v, to_out;
  int64_t heads = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_ATTENTION_H_
