#ifndef HOTLORA_SRC_NN_ATTENTION_H_
#define HOTLORA_SRC_NN_ATTENTION_H_

#include <cstdint>
#include <vector>

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
  at::Tensor forward(const at::Tensor& x) const { return to_out.forward(Attend(to_qkv.forward(x))); }

  // What the tokens find in each other, from to_qkv of them [rows, tokens, 3 * width]; to_out of it is the result.
  at::Tensor Attend(const at::Tensor& qkv) const;

  Linear to_qkv, to_out;
  int64_t heads = 0;
};

// What the rows [first, first + keys_values' rows) of a batch see of an image prompt in one cross attention.
struct ImageRows {
  int64_t first = 0;
  at::Tensor keys_values;  // [rows, image tokens, 2 * width], keys before values
  double scale = 1.0;
};

// The image prompts of one cross attention; a row may be in several, or in none.
using ImageBranch = std::vector<ImageRows>;

// Attention of tokens to a text, with the same names, and to image prompts: softmax(q k^T) v of each image's tokens,
// times its scale, is added to that of the text before to_out.
//
// Shapes   x, y [rows, tokens, width]; context [rows, context tokens, context_width]; text [rows, context tokens,
//          2 * width], keys before values
// Threads  const
// Source   Ye et al. 2023, arXiv 2308.06721, eq. 5 (decoupled cross attention)
struct CrossAttention {
  CrossAttention() = default;
  CrossAttention(const ParameterScope& scope, int64_t width, int64_t context_width, int64_t heads);

  // The text's keys and values: `text` of every call as long as neither the context nor the adapters change.
  at::Tensor ProjectText(const at::Tensor& context, SideBranch side = {}) const { return to_kv.forward(context, side); }

  // What the queries [rows, tokens, width] find in the text and in image prompts; to_out of it is the attention's
  // result.
  at::Tensor Attend(const at::Tensor& q, const at::Tensor& text, const ImageBranch& image = {}) const;

  Linear to_q, to_kv, to_out;
  int64_t heads = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_ATTENTION_H_
