#ifndef HOTLORA_SRC_REQUEST_REFERENCE_CHECK_H_
#define HOTLORA_SRC_REQUEST_REFERENCE_CHECK_H_

// Checks that what a request refers to has in common. `field` is what the checked field is called in an error.

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "src/request/block_weights.h"
#include "src/request/violations.h"

namespace hotlora {

// The normal form of a name; "" if it is none.
std::string CheckReferenceName(const std::string& field, absl::string_view name, Violations& violations);

// The header of a picture that is needed.
void CheckReferencePicture(const std::string& field, const std::string& picture, Violations& violations);

// What weights by block are for, and what they may be.
struct BlockRules {
  absl::Span<const std::string> modules;  // that prefixes may fit; sorted
  absl::string_view modules_noun;         // "UNet modules"
  double least_weight = 0.0, most_weight = 0.0;
};

// The weights, sorted by prefix.
std::vector<BlockWeight> CheckBlocks(const std::string& field, std::vector<BlockWeight> blocks, const BlockRules& rules,
                                     Violations& violations);

// Whether the blocks, else `otherwise`, leave every module at weight 0.
bool LeaveOutAll(absl::Span<const BlockWeight> blocks, double otherwise, absl::Span<const std::string> modules);

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_REFERENCE_CHECK_H_
