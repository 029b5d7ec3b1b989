#include "src/nn/merge_rows.h"

#include <algorithm>
#include <cstring>
#include <variant>

#include <ATen/ATen.h>

#include "src/nn/widen.h"

namespace hotlora {
namespace {

constexpr int64_t kBlockBytes = int64_t{512} << 10;  // of a block's sums, in float32

const uint16_t* Bits(const at::Tensor& tensor) { return static_cast<const uint16_t*>(tensor.const_data_ptr()); }

// to = from, which has its shape.
void Copy(const at::Tensor& from, at::Tensor& to) {
  const int64_t count = to.numel();
  const c10::ScalarType from_type = from.scalar_type(), to_type = to.scalar_type();
  if (!from.is_contiguous() || !to.is_contiguous()) {
    to.copy_(from);
  } else if (from_type == to_type) {
    std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), to.nbytes());
  } else if (from_type == at::kHalf && to_type == at::kFloat) {
    WidenHalf(Bits(from), to.mutable_data_ptr<float>(), count);
  } else if (from_type == at::kBFloat16 && to_type == at::kFloat) {
    WidenBfloat16(Bits(from), to.mutable_data_ptr<float>(), count);
  } else if (from_type == at::kFloat && to_type == at::kHalf) {
    NarrowToHalf(from.const_data_ptr<float>(), static_cast<uint16_t*>(to.mutable_data_ptr()), count);
  } else if (from_type == at::kFloat && to_type == at::kBFloat16) {
    NarrowToBfloat16(from.const_data_ptr<float>(), static_cast<uint16_t*>(to.mutable_data_ptr()), count);
  } else {
    to.copy_(from);
  }
}

at::Tensor AsFloat(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) {
    return tensor;
  }
  at::Tensor wide = at::empty(tensor.sizes(), tensor.options().dtype(at::kFloat), at::MemoryFormat::Contiguous);
  Copy(tensor, wide);
  return wide;
}

bool IsPresent(const WeightedDelta& delta) { return delta.weight != 0.0; }

}  // namespace

bool CanMergeRows(const WeightToMerge& weight) {
  return weight.live.dim() > 0 && weight.live.numel() > 0 && weight.live.sizes() == weight.clean.sizes() &&
         std::all_of(weight.deltas.begin(), weight.deltas.end(),
                     [](const WeightedDelta& delta) { return !IsPresent(delta) || IsPlainProduct(delta); });
}

int64_t RowsOfBlock(const WeightToMerge& weight) {
  const int64_t row_bytes = weight.live.numel() / weight.live.size(0) * static_cast<int64_t>(sizeof(float));
  return std::max<int64_t>(16, kBlockBytes / row_bytes);
}

RowMerge::RowMerge(const WeightToMerge& weight) : weight_(weight) {
  const c10::InferenceMode inference;
  for (const WeightedDelta& weighted : weight.deltas) {
    if (IsPresent(weighted)) {
      const auto& factors = std::get<LowRank>(weighted.delta->change);
      products_.push_back(
          {factors.up, AsFloat(factors.down), static_cast<float>(weighted.weight * weighted.delta->scale)});
    }
  }
}

void RowMerge::Rebuild(int64_t first, int64_t count) const {
  const c10::InferenceMode inference;
  at::Tensor live = weight_.live.narrow(0, first, count);
  const at::Tensor clean = weight_.clean.narrow(0, first, count);
  if (products_.empty() && live.scalar_type() == clean.scalar_type()) {
    Copy(clean, live);
    return;
  }
  // float32 weights are summed where they live.
  const bool in_place = live.scalar_type() == at::kFloat && live.is_contiguous();
  at::Tensor sums =
      in_place ? live : at::empty(live.sizes(), live.options().dtype(at::kFloat), at::MemoryFormat::Contiguous);
  Copy(clean, sums);
  at::Tensor flat = sums.view({count, -1});  // [rows, in * kh * kw]
  for (const Product& product : products_) {
    flat.addmm_(AsFloat(product.up.narrow(0, first, count)), product.down, /*beta=*/1, product.factor);
  }
  if (!in_place) {
    Copy(sums, live);
  }
}

}  // namespace hotlora
