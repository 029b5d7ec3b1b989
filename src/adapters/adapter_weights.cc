#include "src/adapters/adapter_weights.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "src/adapters/store_storage.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"
#include "src/nn/block_layout.h"
#include "src/nn/lora_delta.h"
#include "src/tensor/torch_guard.h"
#include "src/weights/stored_views.h"

namespace hotlora {
namespace {

// Makes tensors of a file's bytes.
class TensorLoader {
 public:
  explicit TensorLoader(const ParsedAdapter& parsed) : parsed_(parsed), views_(parsed.file) {}

  // The tensor as `shape`, by default its stored one: a view of the file's bytes, if they are aligned.
  at::Tensor Load(size_t index) const { return Load(index, stored(index).shape); }
  at::Tensor Load(size_t index, at::IntArrayRef shape) const {
    const at::Tensor tensor = views_.View(stored(index), shape);
    return stored(index).dtype == StoredDtype::kF64 ? tensor.to(at::kFloat) : tensor;
  }

  LowRank LoadProduct(const ParsedFactor& from) const {
    LowRank factors;
    factors.down = Load(*from.down, {from.rank, Elements(*from.down) / from.rank});
    const int64_t out = Elements(*from.up) / from.rank;
    factors.up =
        from.up_transposed ? Load(*from.up, {from.rank, out}).t().contiguous() : Load(*from.up, {out, from.rank});
    if (from.mid.has_value()) {
      factors.mid = Load(*from.mid);
    }
    return factors;
  }

  const StoredTensor& stored(size_t index) const { return parsed_.file.tensors()[index]; }

 private:
  int64_t Elements(size_t index) const {
    return static_cast<int64_t>(stored(index).bytes() / SizeOf(stored(index).dtype));
  }

  const ParsedAdapter& parsed_;
  const StoredViews views_;
};

Kronecker::Factor LoadFactor(const TensorLoader& loader, const ParsedFactor& from) {
  if (from.whole.has_value()) {
    return loader.Load(*from.whole);
  }
  return loader.LoadProduct(from);
}

// Cayley's map of the skew part Q = B - B^T of the stored blocks, R = (I + Q) (I - Q)^-1, as R - I = 2 Q (I - Q)^-1.
Rotation LoadRotation(const TensorLoader& loader, const ParsedDelta& from) {
  const at::Tensor blocks = loader.Load(*from.first.whole).to(at::kFloat);
  at::Tensor skew = blocks - blocks.transpose(1, 2);
  const double norm = at::linalg_vector_norm(skew).item<double>();
  if (from.constraint > 0.0 && norm > from.constraint) {
    skew.mul_(from.constraint / norm);
  }
  Rotation rotation;
  const at::Tensor identity = at::eye(skew.size(1), at::kFloat);
  rotation.turn = at::linalg_solve(identity - skew, skew).mul_(2.0).contiguous();
  if (from.rescale.has_value()) {
    rotation.rescale = loader.Load(*from.rescale).view(-1);
  }
  return rotation;
}

// PEFT's, of the inputs: R = (I - Q) (I + Q)^-1 of the skew Q whose upper triangle is stored, or instead the first
// terms of I + 2 Q + 2 Q^2 + ..., the last of them once. Source: PEFT tuners/oft/layer.py, _cayley_batch
Rotation LoadPeftRotation(const TensorLoader& loader, const ParsedDelta& from) {
  const at::Tensor stored = loader.Load(*from.first.whole).to(at::kFloat);
  const int64_t size = OftBlockSize(stored.size(1));
  const at::Tensor above_diagonal = at::triu_indices(size, size, /*offset=*/1);
  at::Tensor upper = at::zeros({stored.size(0), size, size}, at::kFloat);
  upper.view({stored.size(0), -1}).index_copy_(1, above_diagonal[0] * size + above_diagonal[1], stored);
  const at::Tensor skew = upper - upper.transpose(1, 2);
  at::Tensor turn;  // R - I
  if (from.peft_oft->neumann_terms == 0) {
    const at::Tensor identity = at::eye(size, at::kFloat);
    turn = at::linalg_solve(identity + skew, skew).mul_(-2.0);
  } else {
    const int terms = from.peft_oft->neumann_terms;
    turn = at::zeros_like(skew);
    at::Tensor power = skew;
    if (terms > 1) {
      turn.add_(skew, 2.0);
    }
    if (terms > 2) {
      power = skew.bmm(skew);
      turn.add_(power, 2.0);
      for (int i = 3; i < terms - 1; ++i) {
        power = power.bmm(skew);
        turn.add_(power, 2.0);
      }
      turn.add_(power.bmm(skew));
    }
  }
  Rotation rotation;
  rotation.turn = turn.contiguous();
  rotation.of_inputs = true;
  return rotation;
}

ModuleDelta LoadDelta(const TensorLoader& loader, const ParsedDelta& from) {
  ModuleDelta delta;
  delta.module = from.module;
  delta.scale = from.scale;
  switch (from.form) {
    case DeltaForm::kLowRank:
      delta.change = loader.LoadProduct(from.first);
      break;
    case DeltaForm::kHadamard:
      delta.change = Hadamard{loader.LoadProduct(from.first), loader.LoadProduct(from.second)};
      break;
    case DeltaForm::kKronecker:
      delta.change = Kronecker{LoadFactor(loader, from.first), LoadFactor(loader, from.second)};
      break;
    case DeltaForm::kGeneralized:
      delta.change = GeneralizedLowRank{loader.LoadProduct(from.first), loader.LoadProduct(from.second)};
      break;
    case DeltaForm::kRotation:
      delta.change = from.peft_oft.has_value() ? LoadPeftRotation(loader, from) : LoadRotation(loader, from);
      break;
    case DeltaForm::kFull:
      delta.change = FullDifference{loader.Load(*from.first.whole)};
      break;
  }
  if (from.magnitude.has_value()) {
    const at::Tensor magnitude = loader.Load(*from.magnitude);
    delta.magnitude = from.magnitude_of_outputs ? magnitude.view({-1, 1, 1}) : magnitude.view({1, -1, 1});
  }
  return delta;
}

class TorchAdapterMemory final : public AdapterMemory {
 public:
  TorchAdapterMemory(ComputePlace place, uint64_t host_bytes, uint64_t device_bytes)
      : place_(place), storage_(place.device, host_bytes, device_bytes) {}

  uint64_t host_bytes() const override { return storage_.host_bytes(); }
  uint64_t device_bytes() const override { return storage_.device_bytes(); }

  absl::StatusOr<StagedAdapter> Stage(const ParsedAdapter& parsed) override {
    StagedAdapter staged;
    ABSL_ASSIGN_OR_RETURN(AdapterWeights viewed, ViewAdapter(parsed));
    ABSL_RETURN_IF_ERROR(GuardTorch("adapter load", [&] {
      auto views = std::make_shared<const AdapterWeights>(std::move(viewed));
      staged.bytes = static_cast<uint64_t>(BlockBytes(*views, dtype()));
      staged.lay_out = [this, views, bytes = staged.bytes](uint64_t offset) { return LayOutAt(offset, bytes, *views); };
      return absl::OkStatus();
    }));
    return staged;
  }

  absl::StatusOr<HeldWeights> Upload(const HeldWeights& hosted, uint64_t offset, uint64_t bytes) override {
    HeldWeights uploaded;
    ABSL_RETURN_IF_ERROR(storage_.RunUpload("adapter upload", [&] {
      storage_.UseDevice(offset, bytes);
      const auto& weights = std::get<std::shared_ptr<const AdapterWeights>>(hosted);
      uploaded = CopyToSlab(*weights, storage_.device(), static_cast<int64_t>(offset));
      return absl::OkStatus();
    }));
    return uploaded;
  }

 private:
  BlockDtype dtype() const { return place_.dtype == at::kFloat ? BlockDtype::kFloat : BlockDtype::kAsStored; }

  absl::StatusOr<HeldWeights> LayOutAt(uint64_t offset, uint64_t bytes, const AdapterWeights& views) const {
    HeldWeights laid_out;
    ABSL_RETURN_IF_ERROR(GuardTorch("adapter load", [&] {
      laid_out = LayOut(views, dtype(), storage_.HostBlock(offset, bytes));
      return absl::OkStatus();
    }));
    return laid_out;
  }

  const ComputePlace place_;
  const StoreStorage storage_;
};

}  // namespace

absl::StatusOr<AdapterWeights> ViewAdapter(const ParsedAdapter& parsed) {
  AdapterWeights weights;
  ABSL_RETURN_IF_ERROR(GuardTorch("adapter load", [&] {
    const TensorLoader loader(parsed);
    weights.deltas.reserve(parsed.deltas.size());
    for (const ParsedDelta& from : parsed.deltas) {
      weights.deltas.push_back(LoadDelta(loader, from));
      const Rotation* const rotation = std::get_if<Rotation>(&weights.deltas.back().change);
      if (rotation != nullptr && !at::isfinite(rotation->turn).all().item<bool>()) {
        return MakeError(
            absl::StatusCode::kFailedPrecondition, error_reason::kAdapterInvalid,
            absl::StrCat("adapter is not sound: ", PrintableName(parsed.file.tensors()[*from.first.whole].name),
                         " is too large to become a rotation"));
      }
    }
    return absl::OkStatus();
  }));
  return weights;
}

absl::StatusOr<std::unique_ptr<AdapterMemory>> MakeAdapterMemory(ComputePlace place, uint64_t host_bytes,
                                                                 uint64_t device_bytes) {
  std::unique_ptr<AdapterMemory> memory;
  ABSL_RETURN_IF_ERROR(GuardTorch("memory for adapters", [&] {
    memory = std::make_unique<TorchAdapterMemory>(place, host_bytes, device_bytes);
    Synchronize(place.device);  // work that was queued on this memory before is done when the copy stream writes to it
    return absl::OkStatus();
  }));
  return memory;
}

}  // namespace hotlora
