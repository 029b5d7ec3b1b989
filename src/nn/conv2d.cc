#include "src/nn/conv2d.h"

#include <ATen/ops/conv2d.h>

namespace hotlora {

Conv2d::Conv2d(const ParameterScope& scope, const Conv2dOptions& options)
    : weight(
          scope.TakeModuleWeight({options.out, options.in, options.kernel, options.kernel}, true)),
      bias(scope.Take("bias", {options.out})),
      options(options) {}

at::Tensor Conv2d::forward(const at::Tensor& x) const {
  return at::conv2d(x, weight, bias, {options.stride, options.stride},
                    {options.padding, options.padding});
}

}  // namespace hotlora
