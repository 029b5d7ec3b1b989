#ifndef HOTLORA_SRC_NN_PARAMETER_SOURCE_H_
#define HOTLORA_SRC_NN_PARAMETER_SOURCE_H_

// Where blocks get their parameters from while they are built. A block is built from a scope, a
// dotted path into the checkpoint, so the weight's name is the code's path: the block at `scope`
// makes its parts from `scope.In("conv1")`.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace hotlora {

// A parameter that adapters may change in place, or several that lie one below the other.
struct AdaptableParameter {
  static constexpr size_t kNotListed = SIZE_MAX;

  at::Tensor live;
  size_t index = kNotListed;  // in the module table; of the first, a stack's others follow it
};

// How the live weight of a linear layer or a convolution may lie in memory.
enum class WeightOrder {
  kPlain,  // convolutions channels_last
  kPacked  // packed (packed_weight.h) where the source and the device have that, else plain
};

// Gives out parameters, ready to compute with: on the device, in the network's dtype. Only the
// loading thread uses it. A parameter that the checkpoint lacks or holds in another shape is the
// source's to report; a tensor of the right shape comes back all the same, so that one load finds
// every fault.
class ParameterSource {
 public:
  virtual ~ParameterSource() = default;

  // Embeddings: what no adapter changes.
  virtual at::Tensor Take(const std::string& name, at::IntArrayRef shape) = 0;

  // "<module>.weight" or, after it, "<module>.bias" of a linear layer (weight [out, in]), a convolution
  // ([out, in, height, width]) or a norm ([channels]), which adapters may change in place: its storage
  // stays where it is for as long as the network lives.
  virtual AdaptableParameter TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder order) = 0;

  // The same for several linear layers of one shape that read the same input, one below the other in one
  // tensor [names * shape[0], ...], so that one product computes them all. Each is a module of its own for
  // adapters: its live parameter is its rows of the stack.
  virtual AdaptableParameter TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape,
                                         WeightOrder order) = 0;
};

// A place in the checkpoint's tree of names. A cheap value; the source must outlive it.
class ParameterScope {
 public:
  explicit ParameterScope(ParameterSource& source) : source_(&source) {}

  // The scope one or more levels further in: In("attn1"), In("to_out.0").
  ParameterScope In(std::string_view name) const { return {source_, Join(name)}; }
  ParameterScope In(std::string_view name, size_t index) const {
    return In(std::string(name) + "." + std::to_string(index));
  }

  at::Tensor Take(std::string_view name, at::IntArrayRef shape) const { return source_->Take(Join(name), shape); }
  AdaptableParameter TakeAdaptable(std::string_view name, at::IntArrayRef shape,
                                   WeightOrder order = WeightOrder::kPlain) const {
    return source_->TakeAdaptable(Join(name), shape, order);
  }

  // The parameter `name` of each of the modules.
  AdaptableParameter TakeStacked(const std::vector<std::string>& modules, std::string_view name, at::IntArrayRef shape,
                                 WeightOrder order = WeightOrder::kPlain) const {
    std::vector<std::string> names;
    for (const std::string& module : modules) {
      names.push_back(In(module).Join(name));
    }
    return source_->TakeStacked(names, shape, order);
  }

  const std::string& path() const { return path_; }

 private:
  ParameterScope(ParameterSource* source, std::string path) : source_(source), path_(std::move(path)) {}
  std::string Join(std::string_view name) const {
    return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
  }

  ParameterSource* source_;
  std::string path_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_PARAMETER_SOURCE_H_
