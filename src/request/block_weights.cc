#include "src/request/block_weights.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace hotlora {

bool FitsModule(absl::string_view prefix, absl::string_view module) {
  return absl::StartsWith(module, prefix) && (module.size() == prefix.size() || module[prefix.size()] == '.');
}

// The dot sorts before all letters and digits, but a name of its own may stand before what goes on with one.
bool FitsAnyModule(absl::string_view prefix, absl::Span<const std::string> modules) {
  const auto fits_at = [&](absl::string_view first) {
    const auto found = std::lower_bound(modules.begin(), modules.end(), first);
    return found != modules.end() && FitsModule(prefix, *found);
  };
  return fits_at(prefix) || fits_at(absl::StrCat(prefix, "."));
}

double WeightOfModule(absl::Span<const BlockWeight> blocks, double otherwise, absl::string_view module) {
  const BlockWeight* longest = nullptr;
  for (const BlockWeight& block : blocks) {
    if ((longest == nullptr || block.prefix.size() > longest->prefix.size()) && FitsModule(block.prefix, module)) {
      longest = &block;
    }
  }
  return longest == nullptr ? otherwise : longest->weight;
}

}  // namespace hotlora
