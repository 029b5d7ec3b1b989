#include "src/nn/feed_forward.h"

#include "src/nn/fused_ops.h"

namespace hotlora {

GegluFeedForward::GegluFeedForward(const ParameterScope& scope, int64_t width)
    : project_in(scope.In("net.0.proj"), width, 2 * kExpansion * width),
      project_out(scope.In("net.2"), kExpansion * width, width) {}

at::Tensor GegluFeedForward::forward(const at::Tensor& x, SideBranch side) const {
  return project_out.forward(Geglu(project_in.forward(x, side)), side);
}

}  // namespace hotlora
