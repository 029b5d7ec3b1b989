// The adapter parser on any safetensors file, against the modules of the tiny golden model. The metadata's member
// adapter_config.json stands for that file of a PEFT folder.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "src/adapter_format/adapter_file.h"
#include "src/adapter_format/key_map.h"
#include "src/sdxl/module_list.h"
#include "src/weights/safetensors_file.h"
#include "tests/golden_path.h"

namespace {

using hotlora::KeyMap;
using hotlora::ModuleTable;
using hotlora::ParsedAdapter;
using hotlora::ParsedDelta;
using hotlora::SafetensorsFile;

void Check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

// What ViewAdapter relies on.
void CheckSound(const ParsedAdapter& adapter, const ModuleTable& table) {
  Check(!adapter.deltas.empty() && !adapter.format.empty() && !adapter.targets.empty());
  Check(adapter.unmatched_keys.size() <= hotlora::kMaxListedKeys + 1);
  for (size_t i = 0; i < adapter.deltas.size(); ++i) {
    const ParsedDelta& delta = adapter.deltas[i];
    Check(delta.module < table.modules.size() && (i == 0 || adapter.deltas[i - 1].module < delta.module));
    Check(delta.scale >= -1e30 && delta.scale <= 1e30);
    Check(!delta.Tensors().empty());
    for (const size_t tensor : delta.Tensors()) {
      Check(tensor < adapter.file.tensors().size());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ModuleTable table = hotlora::ReadModuleList(hotlora::GoldenPath("pipeline")).value();
  static const KeyMap keys = KeyMap::Build(table).value();
  const auto* const begin = reinterpret_cast<const std::byte*>(data);
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Parse(std::vector<std::byte>(begin, begin + size));
  if (!file.ok()) {
    return 0;
  }
  hotlora::AdapterFileOptions options;
  if (const auto config = file->metadata().find("adapter_config.json"); config != file->metadata().end()) {
    options.peft_config = config->second;
  }
  for (const bool allow : {false, true}) {
    options.allow_unmatched_keys = allow;
    const absl::StatusOr<ParsedAdapter> adapter = hotlora::ParseAdapter(*file, keys, table, options);
    if (adapter.ok()) {
      CheckSound(*adapter, table);
    }
  }
  return 0;
}
