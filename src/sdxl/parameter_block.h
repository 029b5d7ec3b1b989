#ifndef HOTLORA_SRC_SDXL_PARAMETER_BLOCK_H_
#define HOTLORA_SRC_SDXL_PARAMETER_BLOCK_H_

// A network's parameters in one block of memory, so that to copy the block is to copy the network. They lie the same
// way on every device: no weight is packed.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "src/nn/parameter_source.h"
#include "src/weights/checkpoint.h"

namespace hotlora {

struct BlockParameter {
  std::vector<int64_t> shape;  // of a stack: of all of it
  bool channels_last = false;
  int64_t offset = 0;  // in bytes, a multiple of 64
};

// How parameters lie in a block, in the order in which their network takes them.
struct ParameterLayout {
  c10::ScalarType dtype = c10::kFloat;
  std::vector<BlockParameter> parameters;
  int64_t bytes = 0;  // of the block, a multiple of 64

  // The parameter of that number in a block, uint8, on any device.
  at::Tensor View(size_t index, const at::Tensor& block) const;
};

// Finds the layout while a network is built, and takes its tensors out of `weights`; null only measures. What the
// network gets has shapes but no memory, so it is of no other use, and no shape, however large, allocates anything.
class ParameterStager : public ParameterSource {
 public:
  ParameterStager(ComponentWeights* weights, c10::ScalarType dtype) : weights_(weights) { layout_.dtype = dtype; }

  at::Tensor Take(const std::string& name, at::IntArrayRef shape) override;
  AdaptableParameter TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder) override;
  AdaptableParameter TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape, WeightOrder) override;

  const ParameterLayout& layout() const { return layout_; }

  // Copies all that was taken into a block of layout().bytes on the CPU, uint8.
  void Fill(const at::Tensor& block) const;

 private:
  at::Tensor Add(const std::vector<std::string>& names, at::IntArrayRef shape, bool channels_last);

  ComponentWeights* const weights_;
  ParameterLayout layout_;
  std::vector<std::vector<at::Tensor>> stored_;  // of each parameter; of a stack, one below the other
};

// Feeds a network under construction from a block that has its parameters. REQUIRES: it takes the same as when the
// layout was found.
class BlockParameters : public ParameterSource {
 public:
  // Both outlive it; the network keeps the block's storage.
  BlockParameters(const ParameterLayout& layout, const at::Tensor& block) : layout_(layout), block_(block) {}

  at::Tensor Take(const std::string& name, at::IntArrayRef shape) override;
  AdaptableParameter TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder) override;
  AdaptableParameter TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape, WeightOrder) override;

 private:
  at::Tensor Next();

  const ParameterLayout& layout_;
  const at::Tensor& block_;
  size_t next_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_PARAMETER_BLOCK_H_
