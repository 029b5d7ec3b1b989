#ifndef HOTLORA_SRC_CONTROLS_CONTROL_STORE_H_
#define HOTLORA_SRC_CONTROLS_CONTROL_STORE_H_

// The store of ControlNets, image prompts and the image encoder: adapters' store (adapters/adapter_store.h) over other
// kinds of files and one other memory.

#include <memory>

#include "absl/status/statusor.h"

#include "src/adapters/adapter_store.h"
#include "src/controls/control_store_options.h"
#include "src/metrics/store_metrics.h"
#include "src/sdxl/sdxl_config.h"
#include "src/tensor/device.h"

namespace hotlora {

// Files are checked against `model`, which outlives the store, and compute at `place`. Names are those of
// StoredFolders: a ControlNet's own, kImagePromptKind.prefix before an image prompt's, and kImageEncoderKey.
// AdapterInfo has format, control_types and encoder. Beside the errors of AdapterStore::Create:
// ResourceExhausted (OUT_OF_MEMORY).
//
// Errors of a file: FailedPrecondition, CONTROL_MISMATCH, IMAGE_PROMPT_MISMATCH or IMAGE_ENCODER_MISMATCH if it is of
// another kind or not for this model (names each tensor or number that does not fit), CONTROL_INVALID and so on if it
// is not sound.
absl::StatusOr<std::unique_ptr<AdapterStore>> MakeControlStore(const ControlStoreOptions& options,
                                                               const SdxlConfig& model, ComputePlace place,
                                                               StoreMetrics* metrics);

}  // namespace hotlora

#endif  // HOTLORA_SRC_CONTROLS_CONTROL_STORE_H_
