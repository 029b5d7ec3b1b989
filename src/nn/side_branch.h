#ifndef HOTLORA_SRC_NN_SIDE_BRANCH_H_
#define HOTLORA_SRC_NN_SIDE_BRANCH_H_

// Adapters beside the weights: y = W x + sum_k s_k B_k (A_k x), row by row, so that the rows of one batch may carry
// different adapters. Nothing of W changes, and a swap is the choice of another table.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/types/span.h"
#include <ATen/core/Tensor.h>

#include "src/nn/lora_delta.h"
#include "src/nn/weight_merge.h"

namespace hotlora {

// What one adapter adds to one module's output.
struct SideChange {
  const LowRank* factors;  // on the network's device; of the adapter itself if they serve as they are
  double factor = 1.0;     // times up * down
  at::Tensor kept;         // [out]: the share of W x that stays (DoRA); undefined: all of it
};

// True if the changes of one module, together, have an exact form of low rank: products of two thin matrices
// (Tucker's three for a convolution), and a DoRA over outputs alone. Other formats, and a DoRA beside another change,
// are merged.
bool HasSideForm(absl::Span<const WeightedDelta> deltas);

// What one adapter set adds, by module. Immutable once filled. The adapters outlive it.
class SideTable {
 public:
  SideTable() = default;
  SideTable(SideTable&&) = default;
  SideTable& operator=(SideTable&&) = default;

  // Room for so many changes.
  void Reserve(size_t changes) { changes_.reserve(changes); }

  // Adds a module with all its changes. `clean` is its base weight, whose norms a DoRA needs.
  // REQUIRES: HasSideForm(deltas); modules come in ascending order.
  void Add(size_t module, absl::Span<const WeightedDelta> deltas, const at::Tensor& clean, DoraWeighting dora);

  absl::Span<const SideChange> Of(size_t module) const {
    return module + 1 < starts_.size() ? absl::MakeConstSpan(changes_).subspan(starts_[module], Count(module))
                                       : absl::Span<const SideChange>();
  }
  bool empty() const { return changes_.empty(); }

 private:
  size_t Count(size_t module) const { return starts_[module + 1] - starts_[module]; }
  SideChange MakeChange(const WeightedDelta& weighted, const at::Tensor& clean, DoraWeighting dora);

  std::vector<SideChange> changes_;  // by module, then in request order
  std::vector<uint32_t> starts_;     // where each module's begin
  std::deque<LowRank> made_;         // factors that are not the adapter's own; they stay where they are
};

// The rows [first, first + rows) of a batch, under one adapter set.
struct SideRows {
  int64_t first;
  int64_t rows;
  const SideTable* table;
};

// All rows of one network call that carry adapters; others are not named. Given to forward by value. Empty: none.
using SideBranch = absl::Span<const SideRows>;

// Adds the adapters of the linear modules first_module, first_module + 1, ..., stacked one below the other, to y.
//
// Shapes   x [rows, ..., in]; y [rows, ..., modules * out], contiguous; bias [modules * out], the bias that y
//          already has, or undefined
// Dtypes   x and y alike. The rank-wide intermediate is float32; another dtype of y is rounded once for each adapter
// Source   Hu et al. 2021, arXiv 2106.09685, section 4.1; DoRA: Liu et al. 2024, arXiv 2402.09353, eq. 5
void AddSideLinear(SideBranch side, size_t first_module, int64_t modules, const at::Tensor& x, const at::Tensor& bias,
                   at::Tensor& y);

// y = kept o y + factor * low up^T, where `kept` leaves the bias alone: the second half of a side branch.
//
// Shapes   low [n, rank], float32; bias [out] or undefined; y [n, out], its last dimension contiguous
void AddSideProduct(const SideChange& change, const at::Tensor& low, const at::Tensor& bias, at::Tensor y);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_SIDE_BRANCH_H_
