#ifndef HOTLORA_SRC_REQUEST_BLOCK_WEIGHTS_H_
#define HOTLORA_SRC_REQUEST_BLOCK_WEIGHTS_H_

// Weights of an adapter that differ by block of the UNet.

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace hotlora {

// The weight on the modules of the UNet whose names in diffusers' spelling are `prefix` or begin with it and a dot.
struct BlockWeight {
  std::string prefix;
  double weight = 0.0;
};

// Whether `prefix` is `module` or what stands before one of its dots: "down_blocks.1" fits "down_blocks.1.resnets.0",
// but not "down_blocks.10".
bool FitsModule(absl::string_view prefix, absl::string_view module);

// Whether `prefix` fits one of `modules`, which are sorted.
bool FitsAnyModule(absl::string_view prefix, absl::Span<const std::string> modules);

// The weight of the longest prefix that fits `module`; `otherwise` if none does.
double WeightOfModule(absl::Span<const BlockWeight> blocks, double otherwise, absl::string_view module);

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_BLOCK_WEIGHTS_H_
