#ifndef HOTLORA_SRC_NN_LORA_DELTA_H_
#define HOTLORA_SRC_NN_LORA_DELTA_H_

// What an adapter changes, as tensors: the mathematical side of an adapter ("LoRA" is maths,
// "adapter" is life cycle).

#include <cstddef>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace hotlora {

// The change of one module's weight by one adapter:
//
//   dW = scale * up * down     linear, and convolutions flattened to [out, in * kh * kw]
//
// and with `mid` (LoCon's Tucker form)
//
//   dW[o,i,h,w] = scale * sum_mn up[o,m] mid[m,n,h,w] down[n,i]
//
// Shapes   down [rank, in] or [rank, in * kh * kw]; up [out, rank];
//          mid [rank, rank, kh, kw] or undefined
// Dtypes   as stored in the file (float32, float16, bfloat16), on the CPU or the device;
//          the merge computes in float32
// Source   Hu et al. 2021, arXiv 2106.09685, eq. 3; Tucker form: LyCORIS functional/general.py
struct LoraDelta {
  size_t module = 0;  // index into ModuleTable::modules
  at::Tensor down;
  at::Tensor up;
  at::Tensor mid;
  double scale = 1.0;  // alpha / rank of this module; the request's weight comes on top
};

// All changes of one adapter, each module at most once, in the order of the module table.
// Immutable.
struct AdapterWeights {
  std::vector<LoraDelta> deltas;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_LORA_DELTA_H_
