#ifndef HOTLORA_SRC_ADAPTERS_TIERED_STORE_H_
#define HOTLORA_SRC_ADAPTERS_TIERED_STORE_H_

// What every store is made of. No LibTorch here.

#include <memory>

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_memory.h"
#include "src/adapters/adapter_store.h"
#include "src/adapters/store_reader.h"
#include "src/metrics/store_metrics.h"

namespace hotlora {

// A store of the files of `directory`, of its kind. `reader` may hold references to the other two. `metrics` outlives
// the store and all leases.
std::unique_ptr<AdapterStore> MakeTieredStore(std::unique_ptr<const AdapterDirectory> directory,
                                              std::unique_ptr<StoreMemory> memory,
                                              std::unique_ptr<const StoreReader> reader, StoreMetrics* metrics);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_TIERED_STORE_H_
