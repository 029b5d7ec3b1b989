#include "src/nn/merge_rows.h"

#include <algorithm>
#include <variant>

#include <ATen/ATen.h>

#include "src/nn/packed_weight.h"

namespace hotlora {
namespace {

constexpr int64_t kBlockBytes = int64_t{512} << 10;  // of a block's sums, in float32

at::Tensor AsFloat(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) {
    return tensor;
  }
  at::Tensor wide = at::empty(tensor.sizes(), tensor.options().dtype(at::kFloat), at::MemoryFormat::Contiguous);
  CopyWeight(tensor, wide);
  return wide;
}

bool IsPresent(const WeightedDelta& delta) { return delta.weight != 0.0; }

}  // namespace

bool CanMergeRows(const WeightToMerge& weight) {
  return weight.live.dim() > 0 && weight.live.numel() > 0 && IsOfShape(weight.live, weight.clean.sizes()) &&
         std::all_of(weight.deltas.begin(), weight.deltas.end(),
                     [](const WeightedDelta& delta) { return !IsPresent(delta) || IsPlainProduct(delta); });
}

int64_t RowsOfBlock(const WeightToMerge& weight) {
  const int64_t row_bytes = weight.clean.numel() / weight.clean.size(0) * static_cast<int64_t>(sizeof(float));
  return std::max<int64_t>(1, kBlockBytes / row_bytes / kRowStep) * kRowStep;
}

RowMerge::RowMerge(const WeightToMerge& weight, at::Tensor& scratch) : weight_(weight), scratch_(scratch) {
  const c10::InferenceMode inference;
  for (const WeightedDelta& weighted : weight.deltas) {
    if (IsPresent(weighted)) {
      const auto& factors = std::get<LowRank>(weighted.delta->change);
      products_.push_back(
          {factors.up, AsFloat(factors.down), static_cast<float>(weighted.weight * weighted.delta->scale)});
    }
  }
}

at::Tensor RowMerge::Scratch(at::IntArrayRef shape) const {
  const int64_t count = c10::multiply_integers(shape);
  if (!scratch_.defined() || scratch_.numel() < count) {
    scratch_ = at::empty({count}, at::kFloat);
  }
  return scratch_.narrow(0, 0, count).view(shape);
}

void RowMerge::Rebuild(int64_t first, int64_t count) const {
  const c10::InferenceMode inference;
  const at::Tensor clean = weight_.clean.narrow(0, first, count);
  const at::Tensor& live = weight_.live;
  if (products_.empty() && live.scalar_type() == clean.scalar_type()) {
    CopyRows(clean, first, live);
    return;
  }
  // float32 weights are summed where they live, unless they are packed.
  const bool in_place =
      live.scalar_type() == at::kFloat && !IsPacked(live) && live.narrow(0, first, count).is_contiguous();
  at::Tensor sums = in_place ? live.narrow(0, first, count) : Scratch(clean.sizes());
  CopyWeight(clean, sums);
  at::Tensor flat = sums.view({count, -1});  // [rows, in * kh * kw]
  for (const Product& product : products_) {
    flat.addmm_(AsFloat(product.up.narrow(0, first, count)), product.down, /*beta=*/1, product.factor);
  }
  if (!in_place) {
    CopyRows(sums, first, live);
  }
}

}  // namespace hotlora
