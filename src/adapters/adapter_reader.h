#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_READER_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_READER_H_

// From a name to an adapter that is checked and ready to be laid out. No LibTorch here.

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/adapter_format/adapter_file.h"
#include "src/adapter_format/key_map.h"
#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_lease.h"
#include "src/adapters/adapter_memory.h"
#include "src/adapters/read_buffer.h"
#include "src/weights/module_table.h"

namespace hotlora {

// How often a file may change under the reader before the request gives up.
inline constexpr int kMaxReadAttempts = 4;

// The same status with the adapter's name before its message.
absl::Status NamedError(absl::string_view name, const absl::Status& status);

// A file that passed every check. What is left is to make room and to call staged.lay_out.
struct ReadAdapter {
  AdapterInfo info;  // without content_sha256: the file may still be being hashed
  std::optional<std::string> peft_config;
  std::unique_ptr<const ParsedAdapter> parsed;
  StagedAdapter staged;

  // With content_sha256, for which it waits.
  AdapterInfo HashedInfo() const;
};

// Errors   of AdapterStore::Acquire; ResourceExhausted (ADAPTER_BUDGET) if the file is larger than the host tier
// Threads  thread-safe
class AdapterReader {
 public:
  // `directory` and `memory` outlive it.
  AdapterReader(const AdapterDirectory& directory, KeyMap keys, ModuleTable modules, bool allow_unmatched_keys,
                AdapterMemory& memory)
      : directory_(directory),
        keys_(std::move(keys)),
        modules_(std::move(modules)),
        allow_unmatched_keys_(allow_unmatched_keys),
        memory_(memory) {}

  // The adapter of that name as its file is now: `version` says which one that was, also if it fails.
  absl::StatusOr<ReadAdapter> Read(const std::string& name, AdapterVersion& version, AcquireReport& report) const;

  // An open file as the adapter that it would be under that name.
  absl::StatusOr<ReadAdapter> Check(const std::string& name, int descriptor) const;

  // Bytes that a file may have.
  uint64_t max_file_bytes() const { return memory_.host_bytes() + kMaxAdapterHeaderBytes; }

 private:
  struct Contents {
    SafetensorsFile file;
    std::optional<std::string> peft_config;
  };

  // The whole file; errors of SafetensorsFile.
  absl::StatusOr<SafetensorsFile> ReadFile(int descriptor) const;
  absl::StatusOr<Contents> ReadContents(const std::string& name, AdapterVersion& version) const;
  absl::StatusOr<ReadAdapter> Parse(const std::string& name, Contents contents) const;

  const AdapterDirectory& directory_;
  const KeyMap keys_;
  const ModuleTable modules_;
  const bool allow_unmatched_keys_;
  AdapterMemory& memory_;
  mutable ReadBuffer buffer_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_READER_H_
