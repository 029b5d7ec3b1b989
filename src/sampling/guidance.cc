#include "src/sampling/guidance.h"

#include <numeric>
#include <vector>

#include <ATen/ATen.h>

namespace hotlora {

at::Tensor Guide(const at::Tensor& negative, const at::Tensor& positive, double scale, double rescale) {
  TORCH_CHECK(negative.sizes() == positive.sizes(), "negative is ", negative.sizes(), ", positive ", positive.sizes());
  const at::Tensor unconditional = negative.to(at::kFloat);
  const at::Tensor conditional = positive.to(at::kFloat);
  at::Tensor guided = unconditional + (conditional - unconditional) * scale;
  if (rescale > 0.0) {
    std::vector<int64_t> dimensions(guided.dim() - 1);
    std::iota(dimensions.begin(), dimensions.end(), 1);
    const at::Tensor deviation = conditional.std(dimensions, /*unbiased=*/true, /*keepdim=*/true);
    const at::Tensor guided_deviation = guided.std(dimensions, /*unbiased=*/true, /*keepdim=*/true);
    // A constant prediction has no deviation; 0 / 0 must not become the image.
    const at::Tensor ratio = at::where(guided_deviation > 0, deviation / guided_deviation, 1.0);
    guided = guided * ratio * rescale + guided * (1.0 - rescale);
  }
  return guided;
}

}  // namespace hotlora
