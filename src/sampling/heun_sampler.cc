#include "src/sampling/heun_sampler.h"

#include <ATen/ATen.h>

namespace hotlora {

at::Tensor HeunSampler::Finish(const at::Tensor& start, const at::Tensor& first, const at::Tensor& second) {
  const float dt = plan_.sigmas[index_ + 1] - plan_.sigmas[index_];
  return start + (first + second) / 2 * dt;
}

}  // namespace hotlora
