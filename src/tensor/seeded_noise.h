#ifndef HOTLORA_SRC_TENSOR_SEEDED_NOISE_H_
#define HOTLORA_SRC_TENSOR_SEEDED_NOISE_H_

#include <cstdint>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

namespace hotlora {

// The normal noise of one image: PyTorch's CPU generator (mt19937) seeded with the image's seed, drawing in float32 on
// the CPU whatever the device, so that a seed gives the same picture everywhere. Successive draws go on with the
// generator. Equals torch.randn(shape, generator=torch.Generator().manual_seed(seed)); as there, only the low 32 bits
// of the seed matter. Owned by one row; not thread-safe.
class SeededNoise {
 public:
  explicit SeededNoise(uint64_t seed);

  // float32 on the CPU, contiguous.
  at::Tensor Draw(at::IntArrayRef shape);

 private:
  at::Generator generator_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_SEEDED_NOISE_H_
