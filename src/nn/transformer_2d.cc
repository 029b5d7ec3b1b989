#include "src/nn/transformer_2d.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "src/nn/token_tiles.h"

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

at::Tensor TransformerBlock::forward(at::Tensor& x, const at::Tensor& pending, const at::Tensor& text, SideBranch side,
                                     const ImageBranch& image) const {
  at::Tensor qkv = at::empty({x.size(0), x.size(1), 3 * x.size(2)}, x.options());
  ForTokenTiles(x, side, [&](const TokenTile& tile) {
    at::Tensor tokens = tile(x);
    const at::Tensor normalized = pending.defined() ? norm1.forward_add(tokens, tile(pending)) : norm1.forward(tokens);
    attn1.to_qkv.forward_into(normalized, tile.side(), tile(qkv));
  });
  at::Tensor found = attn1.Attend(qkv);  // [rows, tokens, width], as all that follow
  qkv.reset();
  at::Tensor q = at::empty_like(x);
  ForTokenTiles(x, side, [&](const TokenTile& tile) {
    at::Tensor tokens = tile(x);
    const at::Tensor attended = attn1.to_out.forward(tile(found), tile.side());
    attn2.to_q.forward_into(norm2.forward_add(tokens, attended), tile.side(), tile(q));
  });
  found = attn2.Attend(q, text, image);
  q.reset();
  at::Tensor result = at::empty_like(x);
  ForTokenTiles(x, side, [&](const TokenTile& tile) {
    at::Tensor tokens = tile(x);
    const at::Tensor informed = attn2.to_out.forward(tile(found), tile.side());
    ff.forward_into(norm3.forward_add(tokens, informed), tile.side(), tile(result));
  });
  return result;
}

Transformer2d::Transformer2d(const ParameterScope& scope, const Transformer2dOptions& options)
    : norm(scope.In("norm"), options.channels, options.groups, kEntryNormEpsilon),
      proj_in(scope.In("proj_in"), options.channels, options.channels) {
  for (int64_t i = 0; i < options.depth; ++i) {
    blocks.emplace_back(scope.In("transformer_blocks", i), options);
  }
  proj_out = Linear(scope.In("proj_out"), options.channels, options.channels);
}

at::Tensor Transformer2d::forward(const at::Tensor& x, c10::ArrayRef<at::Tensor> text, SideBranch side,
                                  c10::ArrayRef<ImageBranch> image_prompts) const {
  TORCH_CHECK(text.size() == blocks.size(), "text for ", text.size(), " blocks of ", blocks.size());
  TORCH_CHECK(image_prompts.empty() || image_prompts.size() == blocks.size(), "image prompts for ",
              image_prompts.size(), " blocks of ", blocks.size());
  const ImageBranch none;
  const int64_t rows = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  const auto tokens_of = [&](const at::Tensor& image) {  // a view: channels_last
    return image.permute({0, 2, 3, 1}).reshape({rows, height * width, channels});
  };
  at::Tensor h = proj_in.forward(tokens_of(norm.forward(x)), side);
  at::Tensor pending;  // what the last block adds to h, [rows, height * width, channels]
  for (size_t i = 0; i < blocks.size(); ++i) {
    pending = blocks[i].forward(h, pending, text[i], side, image_prompts.empty() ? none : image_prompts[i]);
  }
  const at::Tensor image = tokens_of(x);
  at::Tensor y = at::empty_like(h);
  ForTokenTiles(h, side, [&](const TokenTile& tile) {
    at::Tensor sum = tile(h), result = tile(y);
    if (pending.defined()) {
      sum.add_(tile(pending));
    }
    proj_out.forward_into(sum, tile.side(), result);
    result.add_(tile(image));
  });
  return y.view({rows, height, width, channels}).permute({0, 3, 1, 2});  // [rows, channels, height, width]
}

void Transformer2d::ProjectText(const at::Tensor& context, SideBranch side, std::vector<at::Tensor>& text) const {
  for (const TransformerBlock& block : blocks) {
    text.push_back(block.attn2.ProjectText(context, side));
  }
}

}  // namespace hotlora
