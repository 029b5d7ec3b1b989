#include "src/nn/attention.h"

#include <ATen/ops/scaled_dot_product_attention.h>

namespace hotlora {
namespace {

at::Tensor SplitHeads(const at::Tensor& x, int64_t heads) {
  const int64_t size = x.size(2) / heads;
  return x.view({x.size(0), x.size(1), heads, size})
      .transpose(1, 2);  // [rows, heads, tokens, size]
}

}  // namespace

at::Tensor AttendHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                       Masking masking) {
  at::Tensor y = at::scaled_dot_product_attention(
      SplitHeads(q, heads), SplitHeads(k, heads), SplitHeads(v, heads),
      /*attn_mask=*/{}, /*dropout_p=*/0.0, masking == Masking::kCausal);
  // The fused kernels lay their result out as [rows, tokens, heads, size], so this reshape is a
  // view.
  return y.transpose(1, 2).reshape(q.sizes());
}

Attention::Attention(const ParameterScope& scope, const AttentionOptions& options)
    : to_q(scope.In("to_q"), options.width, options.width, options.qkv_bias),
      to_k(scope.In("to_k"), options.context_width, options.width, options.qkv_bias),
      to_v(scope.In("to_v"), options.context_width, options.width, options.qkv_bias),
      to_out(scope.In("to_out.0"), options.width, options.width),
      heads(options.heads) {}

at::Tensor Attention::forward(const at::Tensor& x, const at::Tensor& context) const {
  return to_out.forward(
      AttendHeads(to_q.forward(x), to_k.forward(context), to_v.forward(context), heads));
}

}  // namespace hotlora
