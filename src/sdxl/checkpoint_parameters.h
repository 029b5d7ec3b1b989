#ifndef HOTLORA_SRC_SDXL_CHECKPOINT_PARAMETERS_H_
#define HOTLORA_SRC_SDXL_CHECKPOINT_PARAMETERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "src/nn/parameter_source.h"
#include "src/weights/checkpoint.h"
#include "src/weights/module_table.h"

namespace hotlora {

// The two storages of a parameter that adapters may change, on one device. Both stay where they are
// for as long as the model lives.
struct AdaptableWeight {
  // What the network computes with, in the compute dtype: packed (packed_weight.h), or in the shape of `clean`. Then a
  // convolution's weight is channels_last; that of a linear layer may be some rows of a larger tensor, but is
  // contiguous.
  at::Tensor live;
  // The checkpoint's own bytes in their stored dtype, contiguous; never written after the load.
  at::Tensor clean;
};

// Collects, while networks are built, the parameters that adapters may change, in the order in which
// they are built. One index means the same parameter in both.
struct AdaptableModules {
  ModuleTable table;
  std::vector<AdaptableWeight> weights;
};

// Feeds a network under construction from one component of a checkpoint: tensors move to `device`
// and `dtype`, in the order that the network asks for. Everything it gives out owns its storage,
// so the checkpoint can be dropped afterwards. Faults of names and shapes are for
// ComponentWeights::CheckComplete.
class CheckpointParameters : public ParameterSource {
 public:
  // A component that no adapter changes (the VAE).
  CheckpointParameters(ComponentWeights& weights, c10::Device device, c10::ScalarType dtype);

  // A component whose modules are to be listed in `modules`, which must outlive this object.
  CheckpointParameters(ComponentWeights& weights, c10::Device device, c10::ScalarType dtype, Component component,
                       AdaptableModules& modules);

  at::Tensor Take(const std::string& name, at::IntArrayRef shape) override;
  AdaptableParameter TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder order) override;
  AdaptableParameter TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape,
                                 WeightOrder order) override;

  // Bytes of all tensors that were taken.
  uint64_t bytes() const { return bytes_; }

 private:
  // The index of what is listed next.
  size_t NextIndex() const;

  // An uninitialized live parameter: `stacked` of them, one below the other.
  at::Tensor Empty(at::IntArrayRef shape, WeightOrder order, int64_t stacked = 1) const;

  // Fills `live` with the parameter `name` of that shape and lists it.
  void Fill(const std::string& name, at::IntArrayRef shape, const at::Tensor& live);
  void List(const std::string& name, at::IntArrayRef shape);

  ComponentWeights& weights_;
  c10::Device device_;
  c10::ScalarType dtype_;
  Component component_ = Component::kUnet;
  AdaptableModules* modules_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CHECKPOINT_PARAMETERS_H_
