#ifndef HOTLORA_SRC_NN_LINEAR_H_
#define HOTLORA_SRC_NN_LINEAR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "src/nn/parameter_source.h"

namespace hotlora {

// y = x W^T + b over the last dimension.
//
// Shapes   x [..., in]; weight [out, in]; bias [out] or undefined; y [..., out], contiguous
// Dtypes   alike
// Threads  const
struct Linear {
  enum class Bias { kNone, kPresent };

  Linear() = default;
  Linear(const ParameterScope& scope, int64_t in, int64_t out, Bias has_bias = Bias::kPresent);
  at::Tensor forward(const at::Tensor& x) const;

  at::Tensor weight;  // its storage is the module's live weight: adapters rebuild it in place
  at::Tensor bias;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_LINEAR_H_
