#include "src/weights/weight_index.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "src/base/json_text.h"

namespace hotlora {

std::vector<std::string> IndexNames(absl::string_view stem, absl::string_view variant) {
  std::vector<std::string> names = {absl::StrCat(stem, ".safetensors.index", variant, ".json")};
  if (!variant.empty()) {
    names.push_back(absl::StrCat(stem, variant, ".safetensors.index.json"));
  }
  return names;
}

bool IsShardName(absl::string_view name, absl::string_view stem) {
  return absl::StartsWith(name, stem) && absl::StrContains(name, "-of-");
}

absl::StatusOr<WeightIndex> ParseWeightIndex(const nlohmann::json& index) {
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty()) {
    return absl::FailedPreconditionError("weight_map is missing or not an object with entries");
  }
  WeightIndex parsed;
  std::set<std::string> shards;
  for (const auto& [key, shard] : map->items()) {
    if (!shard.is_string() || !absl::EndsWith(shard.get<std::string>(), ".safetensors") ||
        absl::StrContains(shard.get<std::string>(), '/')) {
      return absl::FailedPreconditionError(absl::StrCat("weight_map of ", key, " is ", JsonExcerpt(shard),
                                                        ", must be a safetensors file of its folder"));
    }
    shards.insert(shard.get<std::string>());
    parsed.weight_map.emplace(key, shard.get<std::string>());
  }
  parsed.shards.assign(shards.begin(), shards.end());
  return parsed;
}

}  // namespace hotlora
