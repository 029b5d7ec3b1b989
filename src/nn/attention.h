#ifndef HOTLORA_SRC_NN_ATTENTION_H_
#define HOTLORA_SRC_NN_ATTENTION_H_

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "src/nn/linear.h"
#include "src/nn/parameter_source.h"

namespace hotlora {

// softmax(q k^T / sqrt(head size)) v for each head.
//
// Shapes   q [rows, tokens, heads * size]; k, v [rows, context tokens, heads * size]; result as q
// Masking  causal: token i sees tokens 0 to i (text encoders)
// Layout   the last dimension contiguous; slices of a wider tensor will do
// Dtypes   alike; the softmax is computed in float32
// Source   Vaswani et al. 2017, arXiv 1706.03762, section 3.2; heads are views, without copies
enum class Masking { kNone, kCausal };
at::Tensor AttendHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                       Masking masking = Masking::kNone);

// Attention of tokens to each other, with diffusers' names: to_q, to_k, to_v, to_out.0.
//
// Shapes   x, y [rows, tokens, width]
// Threads  const
struct SelfAttention {
  SelfAttention() = default;
  SelfAttention(const ParameterScope& scope, int64_t width, int64_t heads, Linear::Bias qkv_bias);
  at::Tensor forward(const at::Tensor& x, SideBranch side = {}) const;

  Linear to_qkv, to_out;
  int64_t heads = 0;
};

// Attention of tokens to a text, with the same names.
//
// Shapes   x, y [rows, tokens, width]; context [rows, context tokens, context_width]
// Threads  const
struct CrossAttention {
  CrossAttention() = default;
  CrossAttention(const ParameterScope& scope, int64_t width, int64_t context_width, int64_t heads);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& context, SideBranch side = {}) const;

  Linear to_q, to_kv, to_out;
  int64_t heads = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_ATTENTION_H_
