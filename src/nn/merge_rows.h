#ifndef HOTLORA_SRC_NN_MERGE_ROWS_H_
#define HOTLORA_SRC_NN_MERGE_ROWS_H_

#include <cstdint>

#include "src/nn/grouped_merge.h"

namespace hotlora {

// Whether MergeRows can rebuild the weight: its changes are plain products (IsPlainProduct), or it has none.
bool CanMergeRows(const WeightToMerge& weight);

// How many rows of the weight MergeRows should rebuild in a call, so that they are still in the cache when the products
// come. At least 1.
int64_t RowsOfBlock(const WeightToMerge& weight);

// Rebuilds rows [first, first + count) of a weight on the CPU as MergeWeight does, on the calling thread: clean values
// are read from memory once and live values written once. Without changes live gets the clean values, the very bytes if
// the dtypes are alike.
//
// Threads  any; calls for different rows at the same time are allowed
// Errors   throws c10::Error, std::bad_alloc. REQUIRES: CanMergeRows(weight)
void MergeRows(const WeightToMerge& weight, int64_t first, int64_t count);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_MERGE_ROWS_H_
