#include "src/nn/weight_merge.h"

#include <vector>

#include <ATen/ATen.h>

namespace hotlora {
namespace {

// On the device first: converting there is cheaper than carrying float32 across.
at::Tensor AsFloat(const at::Tensor& tensor, c10::Device device) { return tensor.to(device).to(at::kFloat); }

// sum[o,i,k] += factor * sum_mn up[o,m] mid[m,n,k] down[n,i], with k over height x width.
void AddTucker(at::Tensor& sum, const LoraDelta& delta, float factor) {
  const c10::Device device = sum.device();
  const at::Tensor up = AsFloat(delta.up, device);      // [out, rank]
  const at::Tensor down = AsFloat(delta.down, device);  // [rank, in]
  const int64_t out = up.size(0), rank = down.size(0), in = down.size(1);
  const at::Tensor mid = AsFloat(delta.mid, device).reshape({up.size(1), -1});  // [rank, rank * k]
  const int64_t kernel = mid.size(1) / rank;
  const at::Tensor core = up.matmul(mid).view({out, rank, kernel}).transpose(1, 2);  // [out, k, rank]
  const at::Tensor product = core.matmul(down).transpose(1, 2);                      // [out, in, k]
  sum.view({out, in, kernel}).add_(product, factor);
}

// sum is float32, contiguous, in the shape of the weight.
void AddDelta(at::Tensor& sum, const LoraDelta& delta, double weight) {
  const float factor = static_cast<float>(weight * delta.scale);
  if (delta.mid.defined()) {
    AddTucker(sum, delta, factor);
    return;
  }
  at::Tensor flat = sum.view({sum.size(0), -1});  // [out, in * kh * kw]
  flat.addmm_(AsFloat(delta.up, sum.device()), AsFloat(delta.down, sum.device()), /*beta=*/1,
              /*alpha=*/factor);
}

}  // namespace

void MergeWeight(at::Tensor& live, const at::Tensor& clean, absl::Span<const WeightedDelta> deltas) {
  TORCH_CHECK(live.sizes() == clean.sizes(), "live weight is ", live.sizes(), ", clean is ", clean.sizes());
  std::vector<WeightedDelta> present;
  for (const WeightedDelta& delta : deltas) {
    if (delta.weight != 0.0) {
      present.push_back(delta);
    }
  }
  const c10::InferenceMode inference;
  if (present.empty()) {
    live.copy_(clean);
    return;
  }
  // float32 weights are summed where they live, which saves a copy of the largest ones.
  const bool in_place = live.scalar_type() == at::kFloat && live.is_contiguous();
  at::Tensor sum =
      in_place ? live : at::empty(live.sizes(), live.options().dtype(at::kFloat), at::MemoryFormat::Contiguous);
  sum.copy_(clean);
  for (const WeightedDelta& delta : present) {
    AddDelta(sum, *delta.delta, delta.weight);
  }
  if (!in_place) {
    live.copy_(sum);
  }
}

}  // namespace hotlora
