#ifndef HOTLORA_SRC_NN_WEIGHT_MERGE_H_
#define HOTLORA_SRC_NN_WEIGHT_MERGE_H_

#include "absl/types/span.h"
#include <ATen/core/Tensor.h>

#include "src/nn/lora_delta.h"

namespace hotlora {

// One adapter's change of a module with the request's weight on it.
struct WeightedDelta {
  const ModuleDelta* delta;
  double weight;
};

// True if the change is up * down and nothing more: neither Tucker's form nor a DoRA.
bool IsPlainProduct(const WeightedDelta& weighted);

// What a request's weight w means for a DoRA. Both are the same at w = 1.
enum class DoraWeighting {
  kScaledChange,  // V = W + w * scale * dW, as PEFT has it
  kInterpolated,  // W + w * (W' - W)
};

// Rebuilds a live parameter from its clean base: live = round(clean + sum of weight * dW),
// summed in float32 in the order given and rounded once to live's dtype. DoRA, GLoRA and OFT map what the changes
// before them made of the weight, so they make the order matter. With no deltas it copies the clean bytes. Writes into
// live's storage, whose address stays; never adds to what is there. Weight 0 is absent.
//
// Shapes   live, clean alike: [out, in], [out, in, kh, kw], or [channels] (biases and norms); live may be packed
//          (packed_weight.h)
// Dtypes   live: the compute dtype; clean: the checkpoint's stored dtype
// Threads  the step thread only
// Errors   throws c10::Error if shapes disagree (a bug: adapters are checked when they are read)
void MergeWeight(at::Tensor& live, const at::Tensor& clean, absl::Span<const WeightedDelta> deltas,
                 DoraWeighting dora = DoraWeighting::kScaledChange);

// What a DoRA over outputs multiplies each output's weights by: magnitude / |clean + factor * dW|, 0 if the norm is
// 0.
//
// Shapes   clean [out, in] or [out, in, kh, kw]; result [out, 1, 1] (or [1, in, 1] for norms of inputs)
// Dtypes   result float32
at::Tensor MagnitudeRatio(const at::Tensor& clean, const ModuleDelta& delta, double factor);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_WEIGHT_MERGE_H_
