#include "src/sdxl/checkpoint_parameters.h"

#include <ATen/ops/empty.h>

namespace hotlora {

CheckpointParameters::CheckpointParameters(ComponentWeights& weights, c10::Device device,
                                           c10::ScalarType dtype)
    : weights_(weights), device_(device), dtype_(dtype) {}

CheckpointParameters::CheckpointParameters(ComponentWeights& weights, c10::Device device,
                                           c10::ScalarType dtype, Component component,
                                           AdaptableModules& modules)
    : weights_(weights),
      device_(device),
      dtype_(dtype),
      component_(component),
      modules_(&modules) {}

at::Tensor CheckpointParameters::Take(const std::string& name, at::IntArrayRef shape) {
  return weights_.Take(name, shape).to(device_, dtype_);
}

at::Tensor CheckpointParameters::TakeModuleWeight(const std::string& module, at::IntArrayRef shape,
                                                  bool has_bias) {
  const at::Tensor stored = weights_.Take(module + ".weight", shape);
  const at::MemoryFormat format =
      shape.size() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  at::Tensor live = at::empty(shape, at::TensorOptions(dtype_).device(device_), format);
  live.copy_(stored);
  if (modules_ != nullptr) {
    modules_->table.modules.push_back({component_, module, shape.vec(), has_bias});
    modules_->weights.push_back({live, stored.to(device_)});
  }
  return live;
}

}  // namespace hotlora
