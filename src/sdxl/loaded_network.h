#ifndef HOTLORA_SRC_SDXL_LOADED_NETWORK_H_
#define HOTLORA_SRC_SDXL_LOADED_NETWORK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

#include "src/base/status_macros.h"
#include "src/sdxl/checkpoint_parameters.h"
#include "src/tensor/device.h"
#include "src/tensor/torch_guard.h"
#include "src/weights/checkpoint.h"
#include "src/weights/model_files.h"

namespace hotlora {

// A network beside the model as it lies on disk: its config, and its weights on the CPU in their stored dtype.
template <typename Config>
struct NetworkFile {
  Config config;
  ComponentWeights weights;
  std::string
      sha256;        // of a single file; of a folder: over a line for each weight file, its SHA-256, in order of names
  ModelFiles files;  // what was read
};

// A network beside the model on its device: a ControlNet, an image prompt, an image encoder. Adapters never change it,
// so it has no clean copy.
template <typename Network>
struct LoadedNetwork {
  Network network;
  std::string sha256;  // NetworkFile's
  uint64_t bytes;      // on the device
};

// Reads a network by `read`, which returns a StatusOr<NetworkFile>, and builds it by `build(scope, config)` to compute
// in place.dtype. Beside the errors of `read`: FailedPrecondition names each tensor that is missing, surplus, wrongly
// shaped (found and expected) or not finite in place.dtype, or says that files changed meanwhile.
template <typename Network, typename Read, typename Build>
absl::StatusOr<std::unique_ptr<const LoadedNetwork<Network>>> LoadNetwork(const char* what, ComputePlace place,
                                                                          const Read& read, const Build& build) {
  std::unique_ptr<const LoadedNetwork<Network>> loaded;
  ABSL_RETURN_IF_ERROR(GuardTorch(what, [&]() -> absl::Status {
    ABSL_ASSIGN_OR_RETURN(auto file, read());
    ABSL_RETURN_IF_ERROR(file.files.CheckUnchanged());
    ABSL_RETURN_IF_ERROR(file.weights.CheckFinite(place.dtype));
    CheckpointParameters parameters(file.weights, place.device, place.dtype);
    Network network = build(ParameterScope(parameters), file.config);
    ABSL_RETURN_IF_ERROR(file.weights.CheckComplete());
    Synchronize(place.device);  // other streams read the weights
    loaded = std::make_unique<const LoadedNetwork<Network>>(
        LoadedNetwork<Network>{std::move(network), std::move(file.sha256), parameters.bytes()});
    return absl::OkStatus();
  }));
  return loaded;
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_LOADED_NETWORK_H_
