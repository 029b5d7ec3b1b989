#ifndef HOTLORA_SRC_NN_TIMESTEP_EMBEDDING_H_
#define HOTLORA_SRC_NN_TIMESTEP_EMBEDDING_H_

#include <cstdint>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include "src/nn/linear.h"
#include "src/nn/parameter_source.h"

namespace hotlora {

struct SinusoidOptions {
  int64_t width = 0;             // of the embedding, even
  bool cosine_first = true;      // config key flip_sin_to_cos
  double frequency_shift = 0.0;  // config key freq_shift
};

// Each number as cosines and sines of width / 2 frequencies from 1 down to almost 1/10000:
// frequency i = exp(-ln(10000) * i / (width / 2 - shift)).
//
// Shapes   values [n]; result [n, width]
// Dtypes   float32 both: half types round size ids above 2048; cast the result, not the values
// Threads  const
// Source   Vaswani et al. 2017, arXiv 1706.03762, section 3.5, with DDPM's order
class SinusoidEmbedding {
 public:
  SinusoidEmbedding() = default;
  SinusoidEmbedding(const SinusoidOptions& options, c10::Device device);
  at::Tensor forward(const at::Tensor& values) const;

 private:
  bool cosine_first_ = true;
  // [1, width / 2]. Made on the CPU, whatever the device: at a timestep of 1000 the last bit of a frequency is 6e-5 in
  // the angle, and each kind of device has its own `exp`.
  at::Tensor frequencies_;
};

// linear_2(silu(linear_1(x))).
//
// Shapes   x [rows, in]; y [rows, width]
// Threads  const
struct TimestepEmbedding {
  TimestepEmbedding() = default;
  TimestepEmbedding(const ParameterScope& scope, int64_t in, int64_t width);
  at::Tensor forward(const at::Tensor& x, SideBranch side = {}) const;

  Linear linear_1, linear_2;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_TIMESTEP_EMBEDDING_H_
