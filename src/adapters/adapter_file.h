#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_FILE_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_FILE_H_

// What an adapter file says, checked against the model but not yet made into tensors. No LibTorch
// here.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/adapters/key_map.h"
#include "src/weights/module_table.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// One module's change, as places in the file.
struct ParsedDelta {
  size_t module = 0;        // index into ModuleTable::modules
  size_t down = 0, up = 0;  // indices into SafetensorsFile::tensors()
  std::optional<size_t> mid;
  int64_t rank = 0;
  double scale = 1.0;  // alpha / rank, or what replaces it
};

// An adapter that is sound and fits the model. Immutable.
struct ParsedAdapter {
  SafetensorsFile file;
  std::vector<ParsedDelta> deltas;  // in the order of the module table
  uint64_t tensor_bytes = 0;        // of the tensors that MakeAdapterWeights makes
  std::string format;               // "lora"; "locon" with a kernel larger than 1x1 in it
  uint32_t rank_max = 0;
  std::vector<std::string> targets;         // components, sorted
  std::vector<std::string> unmatched_keys;  // at most kMaxListedKeys, then one entry with a count
};

inline constexpr size_t kMaxListedKeys = 256;

struct AdapterFileOptions {
  bool allow_unmatched_keys = false;
  // Text of adapter_config.json, for a PEFT folder.
  std::optional<std::string> peft_config;
};

// Checks an adapter file against the model and says what it changes.
//
// Names     KeyMap and SplitAdapterKey. A module may be spelled in one way only.
// Shapes    linear: down [r, in], up [out, r], each also with trailing [1, 1];
//           convolution: down [r, in, kh, kw], up [out, r, 1, 1], and without the ones where
//           kh = kw = 1; with mid [r, r, kh, kw] (Tucker) down is [r, in, 1, 1]
// Dtypes    F32, F16, BF16, F64 (becomes F32); every value finite.
//           Alpha and scale: one finite number, integers too
// Scale     `.scale` if there is one, else alpha / r, else what PEFT's configuration says
//           (adapter_config.json, or `lora_adapter_metadata` of the header), else 1.
//           A stored alpha of 0 means alpha = r, as kohya's loader has it.
//           Alpha tensors beside a PEFT configuration must agree with it
// Errors    FailedPrecondition, with what is wrong and which keys (at most 8, then a count)
//   ADAPTER_UNSUPPORTED   keys of another format (LoHa, LoKr, DoRA, bias deltas, ...)
//   ADAPTER_INVALID       a half that is missing, ranks that disagree, values that are not
//                         finite, other dtypes
//   ADAPTER_MISMATCH      keys or shapes that this model lacks; even with
//                         allow_unmatched_keys where no key names a module
// Source    kohya networks/lora.py (LoRAModule, create_network_from_weights); diffusers utils/state_dict_utils.py
absl::StatusOr<ParsedAdapter> ParseAdapter(SafetensorsFile file, const KeyMap& keys, const ModuleTable& table,
                                           const AdapterFileOptions& options);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_FILE_H_
