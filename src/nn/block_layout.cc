#include "src/nn/block_layout.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/ATen.h>

#include "src/nn/widen.h"
#include "src/tensor/byte_view.h"

namespace hotlora {
namespace {

constexpr int64_t kAlignment = 64;

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

int64_t BytesOf(at::IntArrayRef shape, at::ScalarType dtype) {
  return c10::multiply_integers(shape) * static_cast<int64_t>(c10::elementSize(dtype));
}

// to = from, widened if it must be. Both contiguous, of as many elements.
void Copy(const at::Tensor& from, const at::Tensor& to) {
  if (from.scalar_type() == to.scalar_type()) {
    std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), from.nbytes());
  } else if (from.scalar_type() == at::kHalf && to.scalar_type() == at::kFloat) {
    WidenHalf(static_cast<const uint16_t*>(from.const_data_ptr()), to.mutable_data_ptr<float>(), from.numel());
  } else {
    at::Tensor(to).copy_(from);
  }
}

// Lays tensors one behind the other. Without memory it only adds up their bytes.
class Layer {
 public:
  explicit Layer(at::Tensor memory) : memory_(std::move(memory)) {}

  int64_t bytes() const { return bytes_; }

  // Room for a tensor; undefined without memory.
  at::Tensor Take(at::ScalarType dtype, at::IntArrayRef shape) {
    const int64_t offset = bytes_;
    bytes_ = RoundUp(offset + BytesOf(shape, dtype), kAlignment);
    return memory_.defined() ? ViewOf(memory_, offset, dtype, shape) : at::Tensor();
  }

  // Puts `tensor` into the room and makes it the view of it. With `rows` or `columns` beyond its own, zeros follow.
  void Put(at::Tensor& tensor, at::ScalarType dtype) {
    const at::Tensor room = Take(dtype, tensor.sizes());
    if (room.defined()) {
      Copy(tensor, room);
      tensor = room;
    }
  }
  void PutPadded(at::Tensor& tensor, at::ScalarType dtype, int64_t rows, int64_t columns) {
    if (tensor.size(0) == rows && tensor.size(1) == columns) {
      Put(tensor, dtype);
      return;
    }
    at::Tensor room = Take(dtype, {rows, columns});
    if (room.defined()) {
      room.zero_();
      room.narrow(0, 0, tensor.size(0)).narrow(1, 0, tensor.size(1)).copy_(tensor);
      tensor = room;
    }
  }

 private:
  at::Tensor memory_;
  int64_t bytes_ = 0;
};

bool IsPlain(const LowRank& factors) { return !factors.mid.defined(); }

// The product of two matrices' rows, each with each: [m, c] and [n, c] to [m * n, c].
at::Tensor EachWithEach(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kFloat).unsqueeze(1) * b.to(at::kFloat).unsqueeze(0)).view({-1, a.size(1)});
}

bool Splits(const Hadamard& change) {
  return IsPlain(change.first) && IsPlain(change.second) &&
         change.first.down.size(0) * change.second.down.size(0) <= kMaxFaceSplitRank;
}

LowRank FaceSplit(const Hadamard& change) {
  return {EachWithEach(change.first.down, change.second.down),
          EachWithEach(change.first.up.t(), change.second.up.t()).t().contiguous(),
          {}};
}

// Only the shapes of FaceSplit's result matter if nothing is copied.
LowRank FaceSplitShapes(const Hadamard& change) {
  const int64_t rank = change.first.down.size(0) * change.second.down.size(0);
  const at::TensorOptions nowhere = at::TensorOptions(at::kFloat).device(at::kMeta);
  return {
      at::empty({rank, change.first.down.size(1)}, nowhere), at::empty({change.first.up.size(0), rank}, nowhere), {}};
}

// The layout is the order in which the loops below visit the tensors. Two calls have to agree on it: the first, without
// memory, adds up the bytes that the tier then sets aside; the second fills them. So there is one function for both,
// and with `counting` it differs only in that a LoHa becomes low-rank by its shapes alone.
//
// Downs come first, in the order of the module table, so that those of a stack (q, k, v) are neighbours: side_branch.cc
// then computes them in one product. For that no gap may follow a down. Its rank is a multiple of 8, so its bytes are a
// multiple of kAlignment if the module has a multiple of 4 inputs, as all of SDXL's stacks have.
//
// A low-rank change is complete after the second loop except for its magnitude. The last loop takes what is left, which
// is the magnitudes and all other forms.
void LayAll(std::vector<ModuleDelta>& deltas, BlockDtype dtype, bool counting, Layer& layer) {
  const auto dtype_of = [dtype](const at::Tensor& tensor) {
    return dtype == BlockDtype::kFloat ? at::kFloat : tensor.scalar_type();
  };
  for (ModuleDelta& delta : deltas) {
    if (const auto* hadamard = std::get_if<Hadamard>(&delta.change); hadamard != nullptr && Splits(*hadamard)) {
      LowRank split = counting ? FaceSplitShapes(*hadamard) : FaceSplit(*hadamard);
      delta.change = std::move(split);
    }
  }
  for (ModuleDelta& delta : deltas) {
    if (auto* factors = std::get_if<LowRank>(&delta.change)) {
      at::Tensor& down = factors->down;
      const int64_t rank = IsPlain(*factors) ? RoundUp(down.size(0), kRankStep) : down.size(0);
      layer.PutPadded(down, dtype_of(down), rank, down.size(1));
    }
  }
  for (ModuleDelta& delta : deltas) {
    if (auto* factors = std::get_if<LowRank>(&delta.change)) {
      at::Tensor& up = factors->up;
      const int64_t rank = IsPlain(*factors) ? RoundUp(up.size(1), kRankStep) : up.size(1);
      layer.PutPadded(up, dtype_of(up), up.size(0), rank);
      if (factors->mid.defined()) {
        layer.Put(factors->mid, dtype_of(factors->mid));
      }
    }
  }
  for (ModuleDelta& delta : deltas) {
    const bool low_rank = std::holds_alternative<LowRank>(delta.change);
    ForEachTensor(delta, [&](at::Tensor& tensor) {
      const bool laid = low_rank && &tensor != &delta.magnitude;
      if (!laid) {
        tensor = tensor.contiguous();
        layer.Put(tensor, tensor.scalar_type());
      }
    });
  }
}

}  // namespace

int64_t BlockBytes(const AdapterWeights& stored, BlockDtype dtype) {
  std::vector<ModuleDelta> deltas = stored.deltas;
  Layer layer((at::Tensor()));
  LayAll(deltas, dtype, /*counting=*/true, layer);
  return layer.bytes();
}

std::shared_ptr<const AdapterWeights> LayOut(const AdapterWeights& stored, BlockDtype dtype, const at::Tensor& block) {
  auto laid_out = std::make_shared<AdapterWeights>();
  laid_out->deltas = stored.deltas;
  laid_out->block = block;
  Layer layer(block);
  LayAll(laid_out->deltas, dtype, /*counting=*/false, layer);
  return laid_out;
}

std::shared_ptr<const AdapterWeights> CopyToSlab(const AdapterWeights& laid_out, const at::Tensor& slab,
                                                 int64_t offset) {
  const at::Tensor& block = laid_out.block;
  auto moved = std::make_shared<AdapterWeights>();
  moved->block = slab.narrow(0, offset, block.numel());
  at::Tensor(moved->block).copy_(block, /*non_blocking=*/true);
  moved->deltas = laid_out.deltas;
  const char* const begin = static_cast<const char*>(block.const_data_ptr());
  for (ModuleDelta& delta : moved->deltas) {
    ForEachTensor(delta, [&](at::Tensor& tensor) {
      const int64_t at = static_cast<const char*>(tensor.const_data_ptr()) - begin;
      tensor = ViewOf(moved->block, at, tensor.scalar_type(), tensor.sizes());
    });
  }
  return moved;
}

}  // namespace hotlora
