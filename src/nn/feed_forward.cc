#include "src/nn/feed_forward.h"

#include <utility>

#include "src/nn/fused_ops.h"

namespace hotlora {

GegluFeedForward::GegluFeedForward(const ParameterScope& scope, int64_t width)
    : project_in(scope.In("net.0.proj"), width, 2 * kExpansion * width),
      project_out(scope.In("net.2"), kExpansion * width, width) {}

void GegluFeedForward::forward_into(const at::Tensor& x, SideBranch side, at::Tensor y) const {
  project_out.forward_into(Geglu(project_in.forward(x, side)), side, std::move(y));
}

}  // namespace hotlora
