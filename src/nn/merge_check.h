#ifndef HOTLORA_SRC_NN_MERGE_CHECK_H_
#define HOTLORA_SRC_NN_MERGE_CHECK_H_

#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "src/nn/grouped_merge.h"

namespace hotlora {

// Tries on `device` whether `merge`, which is MergeWeights or a test's own, makes the weights that MergeWeight makes on
// the CPU: live weights of `dtype` from small base weights of every dtype and layout, with no product, one and several,
// whose sizes end inside a tile of the kernel in each direction. nullopt if it does; else the first weight that differs
// and by how much. Takes some milliseconds. Throws c10::Error.
std::optional<std::string> FindMergeFault(c10::Device device, c10::ScalarType dtype,
                                          absl::FunctionRef<void(absl::Span<const WeightToMerge>)> merge);

// How far a merged element may be from the CPU's, as |difference| / (1 + |expected|): one rounding to the dtype of the
// live weight, of sums that were rounded in another order.
double MergeTolerance(c10::ScalarType live);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_MERGE_CHECK_H_
