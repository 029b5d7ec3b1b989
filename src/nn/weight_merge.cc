#include "src/nn/weight_merge.h"

#include <variant>
#include <vector>

#include <ATen/ATen.h>

#include "src/nn/packed_weight.h"

namespace hotlora {
namespace {

// On the device first: converting there is cheaper than carrying float32 across.
at::Tensor AsFloat(const at::Tensor& tensor, c10::Device device) { return tensor.to(device).to(at::kFloat); }

// up * down: [out, columns], or with mid [out, in, kh * kw].
at::Tensor Product(const LowRank& factors, c10::Device device) {
  const at::Tensor up = AsFloat(factors.up, device);      // [out, rank]
  const at::Tensor down = AsFloat(factors.down, device);  // [rank, columns]
  if (!factors.mid.defined()) {
    return up.matmul(down);
  }
  const int64_t out = up.size(0), rank = down.size(0);
  const at::Tensor mid = AsFloat(factors.mid, device).reshape({up.size(1), -1});  // [rank, rank * k]
  const int64_t kernel = mid.size(1) / rank;
  const at::Tensor core = up.matmul(mid).view({out, rank, kernel}).transpose(1, 2);  // [out, k, rank]
  return core.matmul(down).transpose(1, 2);                                          // [out, in, k]
}

at::Tensor Whole(const Kronecker::Factor& factor, c10::Device device) {
  const LowRank* const factors = std::get_if<LowRank>(&factor);
  return factors == nullptr ? AsFloat(std::get<at::Tensor>(factor), device) : Product(*factors, device);
}

// dW in float32, in a shape that the weight can be viewed in.
struct DenseChange {
  const at::Tensor& weight;  // [out, in, ...], or [channels] for a full difference
  const c10::Device device = weight.device();

  at::Tensor operator()(const LowRank& change) const { return Product(change, device); }

  at::Tensor operator()(const Hadamard& change) const {
    return Product(change.first, device).mul_(Product(change.second, device));
  }

  at::Tensor operator()(const Kronecker& change) const {
    const at::Tensor first = Whole(change.first, device);    // [A, B]
    const at::Tensor second = Whole(change.second, device);  // [C, D * k] in some shape
    const int64_t rows = first.size(0), columns = first.size(1), inner = weight.size(1) / columns;
    return first.reshape({rows, 1, columns, 1, 1}) *
           second.reshape({1, second.size(0), 1, inner, -1});  // [A, C, B, D, k]
  }

  at::Tensor operator()(const FullDifference& change) const {
    TORCH_CHECK(change.value.numel() == weight.numel() && change.value.size(0) == weight.size(0), "difference is ",
                change.value.sizes(), ", weight ", weight.sizes());
    return AsFloat(change.value, device).view(weight.sizes());
  }

  at::Tensor operator()(const GeneralizedLowRank& change) const {
    const at::Tensor by_kernel = weight.view({weight.size(0), weight.size(1), -1}).transpose(1, 2);  // [out, k, in]
    const at::Tensor mixed = by_kernel.matmul(AsFloat(change.mixed.up, device))
                                 .matmul(AsFloat(change.mixed.down, device))
                                 .transpose(1, 2);  // [out, in, k]
    return mixed.add(Product(change.added, device).view(mixed.sizes()));
  }

  at::Tensor operator()(const Rotation& change) const {
    const at::Tensor turn = AsFloat(change.turn, device);  // [blocks, size, size]
    if (change.of_inputs) {
      const at::Tensor blocks = weight.view({weight.size(0), -1, turn.size(1)}).transpose(0, 1);  // [blocks, out, size]
      return blocks.matmul(turn.transpose(1, 2)).transpose(0, 1).reshape(weight.sizes());
    }
    const at::Tensor blocks = weight.view({turn.size(0), turn.size(1), -1});  // [blocks, size, rest]
    const at::Tensor turned = turn.transpose(1, 2).bmm(blocks).view(weight.sizes());
    if (!change.rescale.defined()) {
      return turned;
    }
    const at::Tensor rows = weight.view({weight.size(0), -1});  // [out, rest]
    const at::Tensor rescale = AsFloat(change.rescale, device).view({-1, 1});
    return turned.view(rows.sizes()).add(rows).mul_(rescale).sub_(rows);
  }
};

// sum += factor * dW. sum is float32, contiguous, in the shape of the weight.
void AddChange(at::Tensor& sum, const ModuleDelta& delta, float factor) {
  const LowRank* const factors = std::get_if<LowRank>(&delta.change);
  if (factors != nullptr && !factors->mid.defined()) {
    at::Tensor flat = sum.view({sum.size(0), -1});  // [out, in * kh * kw]
    flat.addmm_(AsFloat(factors->up, sum.device()), AsFloat(factors->down, sum.device()), /*beta=*/1,
                /*alpha=*/factor);
    return;
  }
  const at::Tensor change = std::visit(DenseChange{sum}, delta.change);
  sum.view(change.sizes()).add_(change, factor);
}

// magnitude / |sum|. A norm of 0 has no direction; 0 stays 0.
at::Tensor Ratio(const at::Tensor& sum, const at::Tensor& stored_magnitude) {
  const at::Tensor magnitude = AsFloat(stored_magnitude, sum.device());  // [out, 1, 1] or [1, in, 1]
  const at::Tensor weight = sum.view({sum.size(0), sum.size(1), -1});    // [out, in, k]
  const bool by_output = magnitude.size(0) == weight.size(0) && magnitude.size(1) == 1;
  const at::Tensor norm = at::linalg_vector_norm(weight, 2, at::IntArrayRef({by_output ? 1 : 0, 2}), /*keepdim=*/true);
  TORCH_CHECK(norm.sizes() == magnitude.sizes(), "magnitude is ", magnitude.sizes(), ", norms are ", norm.sizes());
  return at::where(norm > 0, magnitude / norm, 0.0);
}

// sum = magnitude o sum / |sum|.
void Renormalise(at::Tensor& sum, const at::Tensor& magnitude) {
  sum.view({sum.size(0), sum.size(1), -1}).mul_(Ratio(sum, magnitude));
}

void AddDelta(at::Tensor& sum, const WeightedDelta& weighted, DoraWeighting dora) {
  const ModuleDelta& delta = *weighted.delta;
  if (!delta.magnitude.defined()) {
    AddChange(sum, delta, static_cast<float>(weighted.weight * delta.scale));
  } else if (dora == DoraWeighting::kScaledChange) {
    AddChange(sum, delta, static_cast<float>(weighted.weight * delta.scale));
    Renormalise(sum, delta.magnitude);
  } else {
    at::Tensor full = sum.clone();
    AddChange(full, delta, static_cast<float>(delta.scale));
    Renormalise(full, delta.magnitude);
    sum.lerp_(full, weighted.weight);
  }
}

}  // namespace

bool IsPlainProduct(const WeightedDelta& weighted) {
  const LowRank* const factors = std::get_if<LowRank>(&weighted.delta->change);
  return factors != nullptr && !factors->mid.defined() && !weighted.delta->magnitude.defined();
}

void MergeWeight(at::Tensor& live, const at::Tensor& clean, absl::Span<const WeightedDelta> deltas,
                 DoraWeighting dora) {
  TORCH_CHECK(IsOfShape(live, clean.sizes()), "live weight is ", live.sizes(), ", clean is ", clean.sizes());
  std::vector<WeightedDelta> present;
  for (const WeightedDelta& delta : deltas) {
    if (delta.weight != 0.0) {
      present.push_back(delta);
    }
  }
  const c10::InferenceMode inference;
  if (present.empty()) {
    CopyWeight(clean, live);
    return;
  }
  // float32 weights are summed where they live, which saves a copy of the largest ones.
  const bool in_place = live.scalar_type() == at::kFloat && !IsPacked(live) && live.is_contiguous();
  at::Tensor sum =
      in_place ? live : at::empty(clean.sizes(), live.options().dtype(at::kFloat), at::MemoryFormat::Contiguous);
  sum.copy_(clean);
  for (const WeightedDelta& delta : present) {
    AddDelta(sum, delta, dora);
  }
  if (!in_place) {
    CopyWeight(sum, live);
  }
}

at::Tensor MagnitudeRatio(const at::Tensor& clean, const ModuleDelta& delta, double factor) {
  const c10::InferenceMode inference;
  at::Tensor sum = at::empty(clean.sizes(), clean.options().dtype(at::kFloat), at::MemoryFormat::Contiguous);
  sum.copy_(clean);
  AddChange(sum, delta, static_cast<float>(factor));
  return Ratio(sum, delta.magnitude);
}

}  // namespace hotlora
