#ifndef HOTLORA_SRC_NN_GROUPED_MERGE_H_
#define HOTLORA_SRC_NN_GROUPED_MERGE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include <ATen/core/Tensor.h>

#include "src/nn/merge_tile.h"
#include "src/nn/weight_merge.h"

namespace hotlora {

// A parameter to rebuild; see MergeWeight.
struct WeightToMerge {
  at::Tensor live;
  at::Tensor clean;
  absl::Span<const WeightedDelta> deltas;
};

// Rebuilds many parameters, all on one device, each as MergeWeight does. Those whose changes are sums of products (or
// nothing) are rebuilt on the CPU in one pass over their rows on all threads (merge_rows.h), and on a device that has
// kernels of ours (device_kernels.h) in one launch. The others are rebuilt one by one, on the CPU on all threads, a
// parameter on one. Waits for no device.
//
// Threads  the step thread only
// Errors   throws c10::Error (out of memory), c10::AcceleratorError (the launch); any weight may then be rebuilt or not
void MergeWeights(absl::Span<const WeightToMerge> weights, DoraWeighting dora);

// What the launch takes.
struct MergeTables {
  std::vector<MergeTask> tasks;
  std::vector<MergeProduct> products;
  int64_t tiles = 0;
};

// Adds `weight` to the tables; false, and nothing is added, if it has no such form. The tables hold addresses of its
// tensors.
bool AddToTables(const WeightToMerge& weight, MergeTables* tables);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_GROUPED_MERGE_H_
