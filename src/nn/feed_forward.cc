#include "src/nn/feed_forward.h"

#include <ATen/ops/gelu.h>

namespace hotlora {

GegluFeedForward::GegluFeedForward(const ParameterScope& scope, int64_t width)
    : project_in(scope.In("net.0.proj"), width, 2 * kExpansion * width),
      project_out(scope.In("net.2"), kExpansion * width, width) {}

at::Tensor GegluFeedForward::forward(const at::Tensor& x, SideBranch side) const {
  const at::Tensor both = project_in.forward(x, side);  // [rows, tokens, 2 * hidden]
  const int64_t hidden = both.size(-1) / 2;
  at::Tensor gated = at::gelu(both.narrow(-1, hidden, hidden));  // [rows, tokens, hidden]
  gated.mul_(both.narrow(-1, 0, hidden));
  return project_out.forward(gated, side);
}

}  // namespace hotlora
