#ifndef HOTLORA_SRC_NN_TRANSFORMER_2D_H_
#define HOTLORA_SRC_NN_TRANSFORMER_2D_H_

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include "src/nn/attention.h"
#include "src/nn/feed_forward.h"
#include "src/nn/linear.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"

namespace hotlora {

struct Transformer2dOptions {
  int64_t channels = 0;
  int64_t context_width = 0;
  int64_t heads = 0;
  int64_t depth = 0;   // transformer blocks
  int64_t groups = 0;  // of the entry norm
};

// Self-attention, cross-attention to the text, feed-forward; each normalised before and added to
// its input. The sums are made in x, each in one pass with the norm that comes next, so the last one is left to the
// next block: the result is what is still to be added to x. The block's output is x + result.
//
// Shapes   x, pending, result [rows, tokens, width]; text [rows, context tokens, 2 * width], CrossAttention's
// Inputs   pending: the block before's result, which is added to x first; undefined: none
// Threads  const
// Source   diffusers models/attention.py, BasicTransformerBlock
struct TransformerBlock {
  TransformerBlock() = default;
  TransformerBlock(const ParameterScope& scope, const Transformer2dOptions& options);
  at::Tensor forward(at::Tensor& x, const at::Tensor& pending, const at::Tensor& text, SideBranch side = {},
                     const ImageBranch& image = {}) const;

  LayerNorm norm1, norm2, norm3;
  SelfAttention attn1;
  CrossAttention attn2;
  GegluFeedForward ff;
};

// An image's pixels as tokens through a stack of transformer blocks, added to the image.
//
// Shapes   x, y [rows, channels, height, width]; context [rows, context tokens, context width]; text: a tensor for
//          each block
// Layout   channels_last, so that tokens are a view
// Threads  const
// Source   diffusers models/transformers/transformer_2d.py with linear projections
struct Transformer2d {
  Transformer2d() = default;
  Transformer2d(const ParameterScope& scope, const Transformer2dOptions& options);
  // `image`: for each block, or empty.
  at::Tensor forward(const at::Tensor& x, c10::ArrayRef<at::Tensor> text, SideBranch side = {},
                     c10::ArrayRef<ImageBranch> image = {}) const;

  // Appends what forward takes of a text.
  void ProjectText(const at::Tensor& context, SideBranch side, std::vector<at::Tensor>& text) const;

  GroupNorm norm;
  Linear proj_in, proj_out;
  std::vector<TransformerBlock> blocks;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_TRANSFORMER_2D_H_
