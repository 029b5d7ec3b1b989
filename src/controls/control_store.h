#ifndef HOTLORA_SRC_CONTROLS_CONTROL_STORE_H_
#define HOTLORA_SRC_CONTROLS_CONTROL_STORE_H_

// The store of ControlNets: adapters' store (adapters/adapter_store.h) over another kind of file and another memory.

#include <memory>

#include "absl/status/statusor.h"

#include "src/adapters/adapter_store.h"
#include "src/controls/control_store_options.h"
#include "src/metrics/store_metrics.h"
#include "src/sdxl/sdxl_config.h"
#include "src/tensor/device.h"

namespace hotlora {

// Nets are checked against `model`, which outlives the store, and compute at `place`. AdapterInfo::format is
// "controlnet" or "union", and control_types the number of a union net's types. Beside the errors of
// AdapterStore::Create: ResourceExhausted (OUT_OF_MEMORY).
//
// Errors of a file: FailedPrecondition, CONTROL_MISMATCH if it is not a net for this model (names each tensor or number
// that does not fit), CONTROL_INVALID if it is not sound.
absl::StatusOr<std::unique_ptr<AdapterStore>> MakeControlStore(const ControlStoreOptions& options,
                                                               const SdxlConfig& model, ComputePlace place,
                                                               StoreMetrics* metrics);

}  // namespace hotlora

#endif  // HOTLORA_SRC_CONTROLS_CONTROL_STORE_H_
