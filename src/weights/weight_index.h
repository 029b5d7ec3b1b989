#ifndef HOTLORA_SRC_WEIGHTS_WEIGHT_INDEX_H_
#define HOTLORA_SRC_WEIGHTS_WEIGHT_INDEX_H_

// How the weight files of a diffusers folder are called, and the index of those that are several files (shards). No
// LibTorch here.

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <nlohmann/json.hpp>

namespace hotlora {

// What may stand between the stem of a weight file and its extension, in the order in which files are looked for.
inline constexpr absl::string_view kWeightVariants[] = {"", ".fp32", ".fp16", ".bf16"};

// What the index of files of that stem and variant may be called. The second was diffusers' spelling until 0.30
// (https://github.com/huggingface/diffusers/pull/8869).
std::vector<std::string> IndexNames(absl::string_view stem, absl::string_view variant);

// Whether a file, of whose name this is all but the extension, is called as a shard of that stem.
bool IsShardName(absl::string_view name, absl::string_view stem);

struct WeightIndex {
  std::map<std::string, std::string> weight_map;  // tensor to the shard that has it
  std::vector<std::string> shards;                // each once, by name
};

// FailedPrecondition if the weight map is missing, empty, or names what is not a safetensors file of the index's own
// folder; the message follows the file's name.
absl::StatusOr<WeightIndex> ParseWeightIndex(const nlohmann::json& index);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_WEIGHT_INDEX_H_
