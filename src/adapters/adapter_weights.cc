#include "src/adapters/adapter_weights.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"
#include "src/nn/block_layout.h"
#include "src/nn/lora_delta.h"
#include "src/tensor/byte_view.h"
#include "src/tensor/device_stream.h"
#include "src/tensor/host_slab.h"
#include "src/tensor/page_reserve.h"
#include "src/tensor/torch_guard.h"

namespace hotlora {
namespace {

at::ScalarType TorchDtype(StoredDtype dtype) {
  switch (dtype) {
    case StoredDtype::kF16:
      return at::kHalf;
    case StoredDtype::kBF16:
      return at::kBFloat16;
    case StoredDtype::kF64:
      return at::kDouble;
    default:
      return at::kFloat;
  }
}

// Makes tensors of a file's bytes.
class TensorLoader {
 public:
  explicit TensorLoader(const ParsedAdapter& parsed) : parsed_(parsed), file_(BytesOf(parsed.file)) {}

  // The tensor as `shape`, by default its stored one: a view of the file's bytes, if they are aligned.
  at::Tensor Load(size_t index) const { return Load(index, stored(index).shape); }
  at::Tensor Load(size_t index, at::IntArrayRef shape) const {
    const StoredTensor& from = stored(index);
    const at::ScalarType dtype = TorchDtype(from.dtype);
    const std::byte* const data = parsed_.file.Data(from);
    at::Tensor tensor;
    if (reinterpret_cast<uintptr_t>(data) % SizeOf(from.dtype) == 0) {
      tensor = ViewOf(file_, data - static_cast<const std::byte*>(file_.const_data_ptr()), dtype, shape);
    } else {
      tensor = at::empty(shape, dtype);
      std::memcpy(tensor.mutable_data_ptr(), data, from.bytes());
    }
    return from.dtype == StoredDtype::kF64 ? tensor.to(at::kFloat) : tensor;
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

  // The whole file; never written to. Its own first byte is aligned for every dtype, as where its data begin need not
  // be.
  static at::Tensor BytesOf(const SafetensorsFile& file) {
    const std::byte* const begin = file.Data(file.tensors().front()) - file.data_offset();
    return at::from_blob(const_cast<std::byte*>(begin), {static_cast<int64_t>(file.file_bytes())}, at::kByte);
  }

  const ParsedAdapter& parsed_;
  const at::Tensor file_;
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
      : place_(place),
        copy_stream_(place.device, DeviceStream::Priority::kLow),
        host_(static_cast<int64_t>(host_bytes), place.device),
        slab_(at::empty({static_cast<int64_t>(device_bytes)}, at::TensorOptions(at::kByte).device(place.device))) {
    if (place.device.is_cpu()) {
      pages_ = std::make_unique<PageReserve>(std::vector<PageReserve::Area>{
          {host_.begin(), host_.bytes()}, {static_cast<char*>(slab_.mutable_data_ptr()), slab_.numel()}});
    }
  }

  uint64_t host_bytes() const override { return static_cast<uint64_t>(host_.bytes()); }
  uint64_t device_bytes() const override { return static_cast<uint64_t>(slab_.numel()); }

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

  absl::StatusOr<std::shared_ptr<const AdapterWeights>> Upload(const std::shared_ptr<const AdapterWeights>& hosted,
                                                               uint64_t offset, uint64_t bytes) override {
    std::shared_ptr<const AdapterWeights> uploaded;
    ABSL_RETURN_IF_ERROR(copy_stream_.Run("adapter upload", [&] {
      NoteUse(kDeviceArea, offset, bytes);
      uploaded = CopyToSlab(*hosted, slab_, static_cast<int64_t>(offset));
      return absl::OkStatus();
    }));
    return uploaded;
  }

 private:
  BlockDtype dtype() const { return place_.dtype == at::kFloat ? BlockDtype::kFloat : BlockDtype::kAsStored; }

  absl::StatusOr<std::shared_ptr<const AdapterWeights>> LayOutAt(uint64_t offset, uint64_t bytes,
                                                                 const AdapterWeights& views) const {
    std::shared_ptr<const AdapterWeights> laid_out;
    ABSL_RETURN_IF_ERROR(GuardTorch("adapter load", [&] {
      NoteUse(kHostArea, offset, bytes);
      laid_out = LayOut(views, dtype(), host_.Block(static_cast<int64_t>(offset), static_cast<int64_t>(bytes)));
      return absl::OkStatus();
    }));
    return laid_out;
  }

  static constexpr size_t kHostArea = 0, kDeviceArea = 1;  // of pages_

  void NoteUse(size_t area, uint64_t offset, uint64_t bytes) const {
    if (pages_ != nullptr) {
      pages_->Use(area, static_cast<int64_t>(offset), static_cast<int64_t>(bytes));
    }
  }

  const ComputePlace place_;
  const DeviceStream copy_stream_;  // so that no upload waits for a step
  const HostSlab host_;
  const at::Tensor slab_;               // uint8 on the device
  std::unique_ptr<PageReserve> pages_;  // on the CPU; ends before the storages
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
