#include "src/sdxl/parameter_block.h"

#include <ATen/ops/zeros.h>

#include "src/tensor/byte_view.h"

namespace hotlora {
namespace {

constexpr int64_t kAlignment = 64;

}  // namespace

at::Tensor ParameterLayout::View(size_t index, const at::Tensor& block) const {
  const BlockParameter& parameter = parameters.at(index);
  const std::vector<int64_t>& shape = parameter.shape;
  if (parameter.channels_last) {
    return ViewOf(block, parameter.offset, dtype, {shape[0], shape[2], shape[3], shape[1]}).permute({0, 3, 1, 2});
  }
  return ViewOf(block, parameter.offset, dtype, shape);
}

at::Tensor ParameterStager::Take(const std::string& name, at::IntArrayRef shape) {
  return Add({name}, shape, /*channels_last=*/false);
}

AdaptableParameter ParameterStager::TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder) {
  return {Add({name}, shape, shape.size() == 4)};
}

AdaptableParameter ParameterStager::TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape,
                                                WeightOrder) {
  return {Add(names, shape, /*channels_last=*/false)};
}

at::Tensor ParameterStager::Add(const std::vector<std::string>& names, at::IntArrayRef shape, bool channels_last) {
  BlockParameter parameter{shape.vec(), channels_last, layout_.bytes};
  parameter.shape.front() *= static_cast<int64_t>(names.size());
  const at::Tensor stands_for_it = at::zeros({}, layout_.dtype).expand(parameter.shape);
  const auto bytes = static_cast<int64_t>(stands_for_it.numel() * c10::elementSize(layout_.dtype));
  layout_.bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  layout_.parameters.push_back(std::move(parameter));
  std::vector<at::Tensor>& stored = stored_.emplace_back();
  for (const std::string& name : names) {
    if (weights_ != nullptr) {
      stored.push_back(weights_->Take(name, shape));
    }
  }
  return stands_for_it;
}

void ParameterStager::Fill(const at::Tensor& block) const {
  for (size_t i = 0; i < stored_.size(); ++i) {
    const at::Tensor parameter = layout_.View(i, block);
    int64_t first = 0;
    for (const at::Tensor& stored : stored_[i]) {
      parameter.narrow(0, first, stored.size(0)).copy_(stored);
      first += stored.size(0);
    }
  }
}

at::Tensor BlockParameters::Next() { return layout_.View(next_++, block_); }

at::Tensor BlockParameters::Take(const std::string& name, at::IntArrayRef shape) {
  at::Tensor next = Next();
  TORCH_CHECK(next.sizes() == shape, "the block has ", next.sizes(), " for ", name, ", not ", shape);
  return next;
}

AdaptableParameter BlockParameters::TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder) {
  return {Take(name, shape)};
}

AdaptableParameter BlockParameters::TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape,
                                                WeightOrder) {
  std::vector<int64_t> stacked = shape.vec();
  stacked.front() *= static_cast<int64_t>(names.size());
  return {Take(names.front(), stacked)};
}

}  // namespace hotlora
