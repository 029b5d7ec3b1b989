#include "src/sdxl/checkpoint_parameters.h"

#include <algorithm>
#include <utility>

#include <ATen/ops/empty.h>

#include "src/nn/packed_weight.h"

namespace hotlora {

CheckpointParameters::CheckpointParameters(ComponentWeights& weights, c10::Device device, c10::ScalarType dtype)
    : weights_(weights), device_(device), dtype_(dtype) {}

CheckpointParameters::CheckpointParameters(ComponentWeights& weights, c10::Device device, c10::ScalarType dtype,
                                           Component component, AdaptableModules& modules)
    : weights_(weights), device_(device), dtype_(dtype), component_(component), modules_(&modules) {}

at::Tensor CheckpointParameters::Take(const std::string& name, at::IntArrayRef shape) {
  at::Tensor tensor = weights_.Take(name, shape).to(device_).to(dtype_);
  bytes_ += tensor.nbytes();
  return tensor;
}

size_t CheckpointParameters::NextIndex() const {
  return modules_ == nullptr ? AdaptableParameter::kNotListed : modules_->table.modules.size();
}

at::Tensor CheckpointParameters::Empty(at::IntArrayRef shape, WeightOrder order, int64_t stacked) const {
  const at::TensorOptions options = at::TensorOptions(dtype_).device(device_);
  if (order == WeightOrder::kPacked) {
    if (at::Tensor packed = EmptyPacked(shape, options, stacked); packed.defined()) {
      return packed;
    }
  }
  std::vector<int64_t> stack = shape.vec();
  stack[0] *= stacked;
  return at::empty(stack, options, shape.size() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

AdaptableParameter CheckpointParameters::TakeAdaptable(const std::string& name, at::IntArrayRef shape,
                                                       WeightOrder order) {
  const at::Tensor live = Empty(shape, order);
  const size_t index = NextIndex();
  Fill(name, shape, live);
  return {live, index};
}

AdaptableParameter CheckpointParameters::TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape,
                                                     WeightOrder order) {
  const at::Tensor stack = Empty(shape, order, static_cast<int64_t>(names.size()));
  const int64_t rows = stack.size(0) / static_cast<int64_t>(names.size());
  const size_t first = NextIndex();
  for (size_t i = 0; i < names.size(); ++i) {
    Fill(names[i], shape, stack.narrow(0, static_cast<int64_t>(i) * rows, rows));
  }
  return {stack, first};
}

void CheckpointParameters::Fill(const std::string& name, at::IntArrayRef shape, const at::Tensor& live) {
  const at::Tensor stored = weights_.Take(name, shape).to(device_);  // the one copy from the host
  CopyWeight(stored, live);
  bytes_ += live.nbytes();
  if (modules_ != nullptr) {
    List(name, shape);
    modules_->weights.push_back({live, stored});
  }
}

void CheckpointParameters::List(const std::string& name, at::IntArrayRef shape) {
  std::vector<AdaptableModule>& modules = modules_->table.modules;
  const size_t dot = name.rfind('.');
  AdaptableModule entry{component_, name.substr(0, dot), shape.vec(), name.substr(dot) == ".bias"};
  if (entry.is_bias) {
    const auto weight = std::find_if(modules.rbegin(), modules.rend(), [&entry](const AdaptableModule& module) {
      return module.component == entry.component && module.path == entry.path;
    });
    TORCH_CHECK(weight != modules.rend(), name, " was taken before its weight");
    weight->bias = modules.size();
  }
  modules.push_back(std::move(entry));
}

}  // namespace hotlora
