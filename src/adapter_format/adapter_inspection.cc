#include "src/adapter_format/adapter_inspection.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/adapter_format/adapter_file.h"
#include "src/adapter_format/key_map.h"
#include "src/base/status_macros.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {
namespace {

absl::StatusOr<std::string> ReadConfig(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size > kMaxAdapterJsonBytes) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, error ? std::string(": ") + error.message() : absl::StrCat(" is over ", kMaxAdapterJsonBytes, " bytes")));
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(stream), {});
  if (stream.bad() || !stream.is_open()) {
    return absl::FailedPreconditionError(absl::StrCat(path, " cannot be read"));
  }
  return text;
}

// Says what `parsed` changes.
void Describe(const ParsedAdapter& parsed, const ModuleTable& table, AdapterInspection& inspection) {
  inspection.format = parsed.format;
  inspection.rank_max = parsed.rank_max;
  inspection.matched_modules = parsed.matched_modules;
  inspection.unmatched_keys = parsed.unmatched_keys;
  inspection.notes = parsed.notes;
  std::set<std::pair<Component, std::string>> modules;
  for (const ParsedDelta& delta : parsed.deltas) {
    const AdaptableModule& module = table.modules[delta.module];
    inspection.changed_biases += module.is_bias ? 1 : 0;
    if (modules.emplace(module.component, module.path).second) {
      ++inspection.modules_by_component[std::string(NameOf(module.component))];
    }
  }
}

}  // namespace

absl::StatusOr<AdapterInspection> InspectAdapter(const std::string& path, const ModuleTable& table,
                                                 uint64_t max_bytes) {
  std::error_code error;
  AdapterFileOptions options;
  std::string weights = path;
  if (std::filesystem::is_directory(path, error)) {
    ABSL_ASSIGN_OR_RETURN(options.peft_config, ReadConfig(path + "/adapter_config.json"));
    weights += "/adapter_model.safetensors";
  }
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::ReadFile(weights, max_bytes, kMaxAdapterHeaderBytes);
  if (!file.ok()) {
    return absl::Status(file.status().code(), absl::StrCat(weights, ": ", file.status().message()));
  }
  ABSL_ASSIGN_OR_RETURN(const KeyMap keys, KeyMap::Build(table));
  AdapterInspection inspection;
  inspection.content_sha256 = ContentHash(*file, options.peft_config);
  inspection.bytes = file->file_bytes();
  inspection.tensors = file->tensors().size();
  inspection.metadata = ReadAdapterMetadata(file->metadata(), options.peft_config.value_or(""));

  absl::StatusOr<ParsedAdapter> parsed = ParseAdapter(*file, keys, table, options);
  inspection.verdict = parsed.status();
  if (!parsed.ok()) {
    options.allow_unmatched_keys = true;
    parsed = ParseAdapter(*std::move(file), keys, table, options);
    inspection.takes_unmatched = parsed.ok();
  }
  if (parsed.ok()) {
    Describe(*parsed, table, inspection);
  }
  return inspection;
}

}  // namespace hotlora
