#include "src/nn/transformer_2d.h"

namespace hotlora {
namespace {

constexpr double kLayerNormEpsilon = 1e-5;  // BasicTransformerBlock's; no config key
constexpr double kEntryNormEpsilon = 1e-6;  // Transformer2DModel's; no config key

}  // namespace

TransformerBlock::TransformerBlock(const ParameterScope& scope, const Transformer2dOptions& options)
    : norm1(scope.In("norm1"), options.channels, kLayerNormEpsilon),
      norm2(scope.In("norm2"), options.channels, kLayerNormEpsilon),
      norm3(scope.In("norm3"), options.channels, kLayerNormEpsilon),
      attn1(scope.In("attn1"), options.channels, options.heads, Linear::Bias::kNone),
      attn2(scope.In("attn2"), options.channels, options.context_width, options.heads),
      ff(scope.In("ff"), options.channels) {}

at::Tensor TransformerBlock::forward(at::Tensor& x, const at::Tensor& pending, const at::Tensor& context,
                                     SideBranch side) const {
  const at::Tensor normalized = pending.defined() ? norm1.forward_add(x, pending) : norm1.forward(x);
  const at::Tensor attended = attn1.forward(normalized, side);  // [rows, tokens, width], as all of them
  const at::Tensor informed = attn2.forward(norm2.forward_add(x, attended), context, side);
  return ff.forward(norm3.forward_add(x, informed), side);
}

Transformer2d::Transformer2d(const ParameterScope& scope, const Transformer2dOptions& options)
    : norm(scope.In("norm"), options.channels, options.groups, kEntryNormEpsilon),
      proj_in(scope.In("proj_in"), options.channels, options.channels) {
  for (int64_t i = 0; i < options.depth; ++i) {
    blocks.emplace_back(scope.In("transformer_blocks", i), options);
  }
  proj_out = Linear(scope.In("proj_out"), options.channels, options.channels);
}

at::Tensor Transformer2d::forward(const at::Tensor& x, const at::Tensor& context, SideBranch side) const {
  const int64_t rows = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  at::Tensor h = norm.forward(x);
  h = h.permute({0, 2, 3, 1}).reshape({rows, height * width, channels});  // a view: channels_last
  h = proj_in.forward(h, side);
  at::Tensor pending;  // what the last block adds to h, [rows, height * width, channels]
  for (const TransformerBlock& block : blocks) {
    pending = block.forward(h, pending, context, side);
  }
  if (pending.defined()) {
    h.add_(pending);
  }
  h = proj_out.forward(h, side);
  h = h.view({rows, height, width, channels}).permute({0, 3, 1, 2});  // [rows, channels, height, width]
  return h.add_(x);
}

}  // namespace hotlora
