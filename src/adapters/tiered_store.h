#ifndef HOTLORA_SRC_ADAPTERS_TIERED_STORE_H_
#define HOTLORA_SRC_ADAPTERS_TIERED_STORE_H_

// What every store is made of. No LibTorch here.

#include <memory>
#include <vector>

#include "src/adapters/adapter_memory.h"
#include "src/adapters/adapter_store.h"
#include "src/adapters/stored_folders.h"
#include "src/metrics/store_metrics.h"

namespace hotlora {

// A store of the files of `folders` (StoredFolders) in one memory, to which their readers may hold references.
// `metrics` outlives the store and all leases.
std::unique_ptr<AdapterStore> MakeTieredStore(std::vector<StoredFolder> folders, std::unique_ptr<StoreMemory> memory,
                                              StoreMetrics* metrics);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_TIERED_STORE_H_
