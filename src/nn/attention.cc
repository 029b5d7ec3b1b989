#include "src/nn/attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "src/nn/attention_tiles.h"
#include "src/tensor/threads_for.h"

namespace hotlora {
namespace {

at::Tensor SplitHeads(const at::Tensor& x, int64_t heads) {
  const int64_t size = x.size(2) / heads;
  return x.view({x.size(0), x.size(1), heads, size}).transpose(1, 2);  // [rows, heads, tokens, size]
}

}  // namespace

at::Tensor AttendHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads, Masking masking) {
  const ThreadsFor threads(2.0 * static_cast<double>(q.numel()) * static_cast<double>(k.size(1)));
  if (masking == Masking::kNone && CanAttendByTiles(q, k, v, heads)) {
    const at::Tensor y = at::empty(q.sizes(), q.options());
    AttendByTiles(q, k, v, heads, y);
    return y;
  }
  at::Tensor y = at::scaled_dot_product_attention(SplitHeads(q, heads), SplitHeads(k, heads), SplitHeads(v, heads),
                                                  /*attn_mask=*/{}, /*dropout_p=*/0.0, masking == Masking::kCausal);
  // The fused kernels lay their result out as [rows, tokens, heads, size], so this reshape is a
  // view.
  return y.transpose(1, 2).reshape(q.sizes());
}

SelfAttention::SelfAttention(const ParameterScope& scope, int64_t width, int64_t heads, Linear::Bias qkv_bias)
    : to_qkv(scope, {"to_q", "to_k", "to_v"}, width, width, qkv_bias),
      to_out(scope.In("to_out.0"), width, width),
      heads(heads) {}

at::Tensor SelfAttention::Attend(const at::Tensor& qkv) const {
  const std::vector<at::Tensor> parts = qkv.chunk(3, -1);  // [rows, tokens, width] each
  return AttendHeads(parts[0], parts[1], parts[2], heads);
}

CrossAttention::CrossAttention(const ParameterScope& scope, int64_t width, int64_t context_width, int64_t heads)
    : to_q(scope.In("to_q"), width, width, Linear::Bias::kNone),
      to_kv(scope, {"to_k", "to_v"}, context_width, width, Linear::Bias::kNone),
      to_out(scope.In("to_out.0"), width, width),
      heads(heads) {}

at::Tensor CrossAttention::Attend(const at::Tensor& q, const at::Tensor& text, const ImageBranch& image) const {
  const std::vector<at::Tensor> kv = text.chunk(2, -1);
  at::Tensor found = AttendHeads(q, kv[0], kv[1], heads);
  for (const ImageRows& prompt : image) {
    const std::vector<at::Tensor> of_image = prompt.keys_values.chunk(2, -1);
    const int64_t rows = prompt.keys_values.size(0);
    const at::Tensor added = AttendHeads(q.narrow(0, prompt.first, rows), of_image[0], of_image[1], heads);
    found.narrow(0, prompt.first, rows).add_(added, prompt.scale);
  }
  return found;
}

}  // namespace hotlora
