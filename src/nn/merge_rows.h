#ifndef HOTLORA_SRC_NN_MERGE_ROWS_H_
#define HOTLORA_SRC_NN_MERGE_ROWS_H_

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/grouped_merge.h"

namespace hotlora {

// Whether RowMerge can rebuild the weight: its changes are plain products (IsPlainProduct), or it has none.
bool CanMergeRows(const WeightToMerge& weight);

// How many rows of the weight should be rebuilt in a call, so that they are still in the cache when the products
// come. At least 1; of a packed weight a multiple of kRowStep.
int64_t RowsOfBlock(const WeightToMerge& weight);

// Rebuilds a weight on the CPU, some of its rows at a time, as MergeWeight does: clean values are read from memory once
// and live values written once. Without changes live gets the clean values, the very bytes if the dtypes are alike.
//
// Threads  one; several of one weight may work on different rows at the same time
// Errors   throws c10::Error, std::bad_alloc
class RowMerge {
 public:
  // Widens what all rows share. `weight` outlives this, and so does `scratch`: float32 memory, or an undefined tensor,
  // that grows as far as it must. REQUIRES: CanMergeRows(weight)
  RowMerge(const WeightToMerge& weight, at::Tensor& scratch);

  // Rebuilds rows [first, first + count), of a packed weight multiples of kRowStep.
  void Rebuild(int64_t first, int64_t count) const;

 private:
  struct Product {
    at::Tensor up, down;  // `down` in float32
    float factor;
  };
  at::Tensor Scratch(at::IntArrayRef shape) const;

  const WeightToMerge& weight_;
  at::Tensor& scratch_;
  std::vector<Product> products_;  // those that change anything
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_MERGE_ROWS_H_
