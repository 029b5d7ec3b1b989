#ifndef HOTLORA_SRC_ADAPTER_FORMAT_ADAPTER_INSPECTION_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_ADAPTER_INSPECTION_H_

// What an adapter on disk is, and whether a server would take it: without a server, its adapter folder or LibTorch.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "src/adapter_format/adapter_metadata.h"
#include "src/weights/module_table.h"

namespace hotlora {

struct AdapterInspection {
  std::string content_sha256;  // as AdapterInfo::content_sha256
  uint64_t bytes = 0;          // of the tensors' file
  size_t tensors = 0;
  AdapterMetadata metadata;

  // OK if a server takes the adapter as it is; else what it would answer. The fields below then say what it would
  // take with --allow-unmatched-keys, and are empty if it would not even then.
  absl::Status verdict;
  bool takes_unmatched = false;  // with --allow-unmatched-keys
  std::string format;
  uint32_t rank_max = 0;
  uint32_t matched_modules = 0;
  std::map<std::string, uint32_t> modules_by_component;  // "text_encoder", "text_encoder_2", "unet"
  uint32_t changed_biases = 0;                           // of these modules
  std::vector<std::string> unmatched_keys;               // at most kMaxListedKeys, then one entry with a count
  std::vector<std::string> notes;                        // ParsedAdapter::notes
};

// Reads a .safetensors file or a PEFT folder (adapter_config.json, adapter_model.safetensors) of at most `max_bytes`
// and matches it against `table`. An error only if there is no such file or it is not a safetensors file.
absl::StatusOr<AdapterInspection> InspectAdapter(const std::string& path, const ModuleTable& table,
                                                 uint64_t max_bytes = uint64_t{64} << 30);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_ADAPTER_INSPECTION_H_
