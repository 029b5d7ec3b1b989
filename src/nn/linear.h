#ifndef HOTLORA_SRC_NN_LINEAR_H_
#define HOTLORA_SRC_NN_LINEAR_H_

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/packed_weight.h"
#include "src/nn/parameter_source.h"
#include "src/nn/side_branch.h"

namespace hotlora {

// y = x W^T + b over the last dimension, and with a side branch what adapters add.
//
// Shapes   x [..., in]; weight [out, in], plain or packed; bias [out] or undefined; y [..., out], contiguous
// Dtypes   alike
// Threads  const
struct Linear {
  enum class Bias { kNone, kPresent };

  Linear() = default;
  Linear(const ParameterScope& scope, int64_t in, int64_t out, Bias has_bias = Bias::kPresent);

  // The linear layers `names` of one shape, stacked: y is [..., names * out], in their order.
  Linear(const ParameterScope& scope, const std::vector<std::string>& names, int64_t in, int64_t out, Bias has_bias);

  at::Tensor forward(const at::Tensor& x, SideBranch side = {}) const;

  // The same into y, which is contiguous.
  void forward_into(const at::Tensor& x, SideBranch side, at::Tensor y) const;

  int64_t outputs() const { return OutputsOf(weight); }

  // Their storage is the module's live parameters (or the modules', one below the other): adapters
  // rebuild it in place.
  at::Tensor weight;
  at::Tensor bias;
  size_t module = AdaptableParameter::kNotListed;  // the first
  int64_t modules = 1;                             // in the stack
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_LINEAR_H_
