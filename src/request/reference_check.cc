#include "src/request/reference_check.h"

#include <algorithm>
#include <cstddef>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

#include "src/base/printable.h"
#include "src/base/resource_name.h"
#include "src/image/image_header.h"

namespace hotlora {

std::string CheckReferenceName(const std::string& field, absl::string_view name, Violations& violations) {
  const absl::StatusOr<std::string> normal = NormalizeName(name);
  if (!normal.ok()) {
    violations.Add(field, normal.status().message());
  }
  return normal.value_or("");
}

void CheckReferencePicture(const std::string& field, const std::string& picture, Violations& violations) {
  if (picture.empty()) {
    violations.Add(field, "is missing");
  } else if (const absl::Status header = ReadImageHeader(picture).status(); !header.ok()) {
    violations.Add(field, header.message());
  }
}

std::vector<BlockWeight> CheckBlocks(const std::string& field, std::vector<BlockWeight> blocks, const BlockRules& rules,
                                     Violations& violations) {
  if (blocks.size() > kMaxBlocks) {
    violations.Add(field, "has ", blocks.size(), " entries; allowed are at most ", kMaxBlocks);
    return {};
  }
  absl::flat_hash_set<absl::string_view> prefixes;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::string entry = absl::StrCat(field, "[", i, "].");
    const std::string& prefix = blocks[i].prefix;
    if (prefix.empty()) {
      violations.Add(entry + "prefix", "is empty; allowed are names of ", rules.modules_noun,
                     ", and what stands before their dots");
    } else if (!FitsAnyModule(prefix, rules.modules)) {
      violations.Add(entry + "prefix", "is ", PrintableName(prefix), "; allowed are names of ", rules.modules_noun,
                     " in diffusers' spelling, and what stands before their dots");
    } else if (!prefixes.insert(prefix).second) {
      violations.Add(entry + "prefix", "is ", PrintableName(prefix), ", which is in the list already");
    }
    violations.RealInRange(entry + "weight", blocks[i].weight, rules.least_weight, rules.most_weight, 0);
  }
  std::sort(blocks.begin(), blocks.end(),
            [](const BlockWeight& a, const BlockWeight& b) { return a.prefix < b.prefix; });
  return blocks;
}

bool LeaveOutAll(absl::Span<const BlockWeight> blocks, double otherwise, absl::Span<const std::string> modules) {
  return std::all_of(modules.begin(), modules.end(),
                     [&](const std::string& module) { return WeightOfModule(blocks, otherwise, module) == 0.0; });
}

}  // namespace hotlora
