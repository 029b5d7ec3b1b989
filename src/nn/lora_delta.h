#ifndef HOTLORA_SRC_NN_LORA_DELTA_H_
#define HOTLORA_SRC_NN_LORA_DELTA_H_

// What an adapter changes, as tensors: the mathematical side of an adapter ("LoRA" is maths,
// "adapter" is life cycle).
//
// Weights are written W[o,i,k], k over height x width; k = 1 in linear layers. Tensors have the dtype of the file
// (float32, float16, bfloat16), on the CPU or the device; the merge computes in float32.

#include <cstddef>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

namespace hotlora {

// A product of two thin matrices, LoRA's own form:
//
//   dW          = up * down                                 linear layers, and convolutions flattened to
//                                                           [out, in * kh * kw]
//   dW[o,i,h,w] = sum_mn up[o,m] mid[m,n,h,w] down[n,i]     with `mid`: Tucker's form
//
// Shapes   down [rank, in] or [rank, in * kh * kw]; up [out, rank];
//          mid [rank, rank, kh, kw] or undefined
// Source   Hu et al. 2021, arXiv 2106.09685, eq. 3; Tucker form: LyCORIS functional/general.py
struct LowRank {
  at::Tensor down;
  at::Tensor up;
  at::Tensor mid;
};

// LoHa: dW = first o second, element by element. Both in the shape of the weight.
// Source   Hyeon-Woo et al. 2021, arXiv 2108.06098; LyCORIS functional/loha.py
struct Hadamard {
  LowRank first;
  LowRank second;
};

// LoKr: dW = first (x) second, Kronecker's product:
//
//   dW[a * C + c, b * D + d, k] = first[a,b] second[c,d,k]
//
// Shapes   first [A, B], second [C, D] or [C, D, kh, kw], either whole or as a product of that shape;
//          A * C = out, B * D = in
// Source   Yeh et al. 2023, arXiv 2309.14859; LyCORIS functional/lokr.py
struct Kronecker {
  using Factor = std::variant<at::Tensor, LowRank>;
  Factor first;
  Factor second;
};

// GLoRA: dW[o,j,k] = added + sum_i W[o,i,k] mixed[i,j], which mixes inputs as W sees them.
//
// Shapes   added that of the weight; mixed [in, in]
// Source   Chavan et al. 2023, arXiv 2306.07967; LyCORIS modules/glora.py
struct GeneralizedLowRank {
  LowRank added;
  LowRank mixed;
};

// OFT: the outputs, block by block, are turned and then rescaled,
//
//   W'[b * size + m, ...] = rescale[b * size + m] * (W[b * size + m, ...] + sum_n turn[b,n,m] W[b * size + n, ...])
//
// and dW = W' - W. turn = R - I with R orthogonal, so it is 0 if nothing turns. PEFT turns the inputs instead, the
// same for all outputs: W'[..., b * size + m] = W[..., b * size + m] + sum_n turn[b,m,n] W[..., b * size + n].
//
// Shapes   turn [blocks, size, size], blocks * size = out (in, with of_inputs, or 1: one block for all); rescale [out]
//          or undefined
// Source   Qiu et al. 2023, arXiv 2306.07280; kohya networks/oft.py, LyCORIS functional/diag_oft.py
struct Rotation {
  at::Tensor turn;
  at::Tensor rescale;
  bool of_inputs = false;
};

// dW itself, in the shape of the weight, bias or norm; trailing ones are no difference.
struct FullDifference {
  at::Tensor value;
};

// The change of one parameter by one adapter: W + scale * dW, and with a magnitude (DoRA)
//
//   W' = magnitude o V / |V|,   V = W + scale * dW
//
// where the norm is of each output's weights, over i and k, or of each input's, over o and k. W is the weight as the
// adapters before this one left it. Biases and norms change by a full difference alone.
//
// Shapes   magnitude [out, 1, 1] for norms of outputs, [1, in, 1] for norms of inputs; undefined without DoRA
// Source   Liu et al. 2024, arXiv 2402.09353, eq. 5; PEFT tuners/lora/dora.py
struct ModuleDelta {
  size_t module = 0;  // index into ModuleTable::modules
  std::variant<LowRank, Hadamard, Kronecker, FullDifference, GeneralizedLowRank, Rotation> change;
  double scale = 1.0;  // alpha / rank of this module; the request's weight comes on top
  at::Tensor magnitude;
};

template <typename Visit>
void ForEachTensor(LowRank& factors, Visit visit) {
  for (at::Tensor* tensor : {&factors.down, &factors.up, &factors.mid}) {
    if (tensor->defined()) {
      visit(*tensor);
    }
  }
}

template <typename Visit>
void ForEachTensor(Hadamard& change, Visit visit) {
  ForEachTensor(change.first, visit);
  ForEachTensor(change.second, visit);
}

template <typename Visit>
void ForEachTensor(Kronecker& change, Visit visit) {
  for (Kronecker::Factor* factor : {&change.first, &change.second}) {
    if (auto* whole = std::get_if<at::Tensor>(factor)) {
      visit(*whole);
    } else {
      ForEachTensor(std::get<LowRank>(*factor), visit);
    }
  }
}

template <typename Visit>
void ForEachTensor(GeneralizedLowRank& change, Visit visit) {
  ForEachTensor(change.added, visit);
  ForEachTensor(change.mixed, visit);
}

template <typename Visit>
void ForEachTensor(Rotation& change, Visit visit) {
  visit(change.turn);
  if (change.rescale.defined()) {
    visit(change.rescale);
  }
}

template <typename Visit>
void ForEachTensor(FullDifference& change, Visit visit) {
  visit(change.value);
}

// Calls visit(at::Tensor&) with every tensor that the change has.
template <typename Visit>
void ForEachTensor(ModuleDelta& delta, Visit visit) {
  std::visit([&visit](auto& change) { ForEachTensor(change, visit); }, delta.change);
  if (delta.magnitude.defined()) {
    visit(delta.magnitude);
  }
}

// All changes of one adapter, each entry of the module table at most once, in its order.
// Immutable.
struct AdapterWeights {
  std::vector<ModuleDelta> deltas;
  at::Tensor block;  // uint8: the one memory that all of them are views of (block_layout.h); undefined in tests' own
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_LORA_DELTA_H_
