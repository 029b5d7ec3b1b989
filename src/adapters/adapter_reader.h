#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_READER_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_READER_H_

// The files of adapters. No LibTorch here.

#include <utility>

#include "absl/status/statusor.h"

#include "src/adapter_format/adapter_file.h"
#include "src/adapter_format/key_map.h"
#include "src/adapters/store_reader.h"
#include "src/weights/module_table.h"

namespace hotlora {

class AdapterReader final : public StoreReader {
 public:
  // `directory` and `memory` outlive it.
  AdapterReader(const AdapterDirectory& directory, KeyMap keys, ModuleTable modules, bool allow_unmatched_keys,
                AdapterMemory& memory)
      : StoreReader(directory, kMaxAdapterHeaderBytes),
        keys_(std::move(keys)),
        modules_(std::move(modules)),
        allow_unmatched_keys_(allow_unmatched_keys),
        memory_(memory) {}

  uint64_t max_file_bytes() const override { return memory_.host_bytes() + kMaxAdapterHeaderBytes; }

 private:
  absl::StatusOr<ReadAdapter> Parse(Contents contents) const override;

  const KeyMap keys_;
  const ModuleTable modules_;
  const bool allow_unmatched_keys_;
  AdapterMemory& memory_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_READER_H_
