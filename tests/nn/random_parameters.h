#ifndef HOTLORA_TESTS_NN_RANDOM_PARAMETERS_H_
#define HOTLORA_TESTS_NN_RANDOM_PARAMETERS_H_

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "src/nn/packed_weight.h"
#include "src/nn/parameter_source.h"

namespace hotlora {

// Random parameters of moderate size for a block under test, kept by name so that a test can
// compute with them too.
class RandomParameters : public ParameterSource {
 public:
  explicit RandomParameters(uint64_t seed = 1, at::ScalarType dtype = at::kFloat) : dtype_(dtype) {
    at::manual_seed(seed);
  }

  at::Tensor Take(const std::string& name, at::IntArrayRef shape) override {
    return taken[name] = (at::randn(shape) * 0.3 + 0.5).to(dtype_);
  }

  AdaptableParameter TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder order) override {
    if (shape.size() == 1) {
      return {Take(name, shape), next_index++};
    }
    at::Tensor weight = (at::randn(shape) / std::sqrt(static_cast<double>(at::randn(shape)[0].numel()))).to(dtype_);
    if (shape.size() == 4) {
      weight = weight.contiguous(at::MemoryFormat::ChannelsLast);
    }
    taken[name] = weight;
    return {InOrder(weight, shape, order), next_index++};
  }

  AdaptableParameter TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape,
                                 WeightOrder order) override {
    const size_t first = next_index;
    std::vector<at::Tensor> parameters;
    for (const std::string& name : names) {
      parameters.push_back(TakeAdaptable(name, shape, WeightOrder::kPlain).live);
    }
    return {InOrder(at::cat(parameters), shape, order, static_cast<int64_t>(names.size())), first};
  }

  std::map<std::string, at::Tensor> taken;
  size_t next_index = 0;  // parameters that adapters may change, in the order in which they are taken

 private:
  const at::ScalarType dtype_;

  static at::Tensor InOrder(const at::Tensor& plain, at::IntArrayRef shape, WeightOrder order, int64_t stacked = 1) {
    const at::Tensor packed =
        order == WeightOrder::kPacked ? EmptyPacked(shape, plain.options(), stacked) : at::Tensor();
    if (!packed.defined()) {
      return plain;
    }
    CopyWeight(plain, packed);
    return packed;
  }
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_NN_RANDOM_PARAMETERS_H_
