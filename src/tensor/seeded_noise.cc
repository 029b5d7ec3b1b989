#include "src/tensor/seeded_noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>

namespace hotlora {

SeededNoise::SeededNoise(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

at::Tensor SeededNoise::Draw(at::IntArrayRef shape) {
  return at::randn(shape, generator_, at::TensorOptions(c10::kCPU).dtype(c10::kFloat));
}

}  // namespace hotlora
