#ifndef HOTLORA_SRC_NN_PARAMETER_SOURCE_H_
#define HOTLORA_SRC_NN_PARAMETER_SOURCE_H_

// Where blocks get their parameters from while they are built. A block is built from a scope, a
// dotted path into the checkpoint, so the weight's name is the code's path: the block at `scope`
// makes its parts from `scope.In("conv1")`.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace hotlora {

// Gives out parameters, ready to compute with: on the device, in the network's dtype. Only the
// loading thread uses it. A parameter that the checkpoint lacks or holds in another shape is the
// source's to report; a tensor of the right shape comes back all the same, so that one load finds
// every fault.
class ParameterSource {
 public:
  virtual ~ParameterSource() = default;

  // Biases, norms and embeddings: what no adapter changes.
  virtual at::Tensor Take(const std::string& name, at::IntArrayRef shape) = 0;

  // The tensor "<module>.weight" of a linear layer ([out, in]) or a convolution ([out, in, height,
  // width]), which adapters may change in place: its storage stays where it is for as long as the
  // network lives.
  virtual at::Tensor TakeModuleWeight(const std::string& module, at::IntArrayRef shape, bool has_bias) = 0;

  // The weights of several linear layers [out, in] that read the same input, one below the other in
  // one tensor [modules * out, in], so that one product computes them all. Each is a module of its
  // own for adapters: its live weight is its rows of the stack.
  virtual at::Tensor TakeStackedWeights(const std::vector<std::string>& modules, at::IntArrayRef shape,
                                        bool has_bias) = 0;
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
  at::Tensor TakeModuleWeight(at::IntArrayRef shape, bool has_bias) const {
    return source_->TakeModuleWeight(path_, shape, has_bias);
  }

  at::Tensor TakeStackedWeights(const std::vector<std::string>& names, at::IntArrayRef shape, bool has_bias) const {
    std::vector<std::string> modules;
    for (const std::string& name : names) {
      modules.push_back(Join(name));
    }
    return source_->TakeStackedWeights(modules, shape, has_bias);
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
