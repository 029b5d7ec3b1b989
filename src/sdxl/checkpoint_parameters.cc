#include "src/sdxl/checkpoint_parameters.h"

#include <ATen/ops/empty.h>

namespace hotlora {

CheckpointParameters::CheckpointParameters(ComponentWeights& weights, c10::Device device, c10::ScalarType dtype)
    : weights_(weights), device_(device), dtype_(dtype) {}

CheckpointParameters::CheckpointParameters(ComponentWeights& weights, c10::Device device, c10::ScalarType dtype,
                                           Component component, AdaptableModules& modules)
    : weights_(weights), device_(device), dtype_(dtype), component_(component), modules_(&modules) {}

at::Tensor CheckpointParameters::Take(const std::string& name, at::IntArrayRef shape) {
  return weights_.Take(name, shape).to(device_, dtype_);
}

at::Tensor CheckpointParameters::TakeModuleWeight(const std::string& module, at::IntArrayRef shape, bool has_bias) {
  const at::MemoryFormat format = shape.size() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const at::Tensor live = at::empty(shape, at::TensorOptions(dtype_).device(device_), format);
  FillModule(module, has_bias, live);
  return live;
}

at::Tensor CheckpointParameters::TakeStackedWeights(const std::vector<std::string>& modules, at::IntArrayRef shape,
                                                    bool has_bias) {
  const int64_t count = static_cast<int64_t>(modules.size());
  const at::Tensor stack = at::empty({count * shape[0], shape[1]}, at::TensorOptions(dtype_).device(device_));
  for (int64_t i = 0; i < count; ++i) {
    FillModule(modules[i], has_bias, stack.narrow(0, i * shape[0], shape[0]));
  }
  return stack;
}

void CheckpointParameters::FillModule(const std::string& module, bool has_bias, const at::Tensor& live) {
  const at::Tensor stored = weights_.Take(module + ".weight", live.sizes());
  live.copy_(stored);
  if (modules_ != nullptr) {
    modules_->table.modules.push_back({component_, module, live.sizes().vec(), has_bias});
    modules_->weights.push_back({live, stored.to(device_)});
  }
}

}  // namespace hotlora
