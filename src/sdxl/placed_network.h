#ifndef HOTLORA_SRC_SDXL_PLACED_NETWORK_H_
#define HOTLORA_SRC_SDXL_PLACED_NETWORK_H_

// Networks beside the model - ControlNets, image prompts, the image encoder - on the way from a file to a block of
// memory.

#include <memory>
#include <type_traits>
#include <utility>

#include "absl/status/statusor.h"
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "src/base/status_macros.h"
#include "src/nn/parameter_source.h"
#include "src/sdxl/parameter_block.h"
#include "src/weights/checkpoint.h"
#include "src/weights/model_unsupported.h"

namespace hotlora {

template <typename Network>
using ConfigOf = std::decay_t<decltype(std::declval<const Network&>().config())>;

// A network as its file has it.
template <typename Network>
struct NetworkFile {
  ConfigOf<Network> config;
  ComponentWeights weights;  // views of the file's bytes, in their stored dtype
};

// A file that passed every check, on its way into a block.
template <typename Network>
struct StagedNetwork {
  ConfigOf<Network> config;
  std::shared_ptr<const ParameterStager> parameters;
};

// A network whose parameters are views of one block of memory. LoRAs never change it, so it has no clean copy.
// Immutable.
template <typename Network>
struct PlacedNetwork {
  // REQUIRES: `in_block` holds the parameters of such a network in that layout.
  PlacedNetwork(ParameterLayout of_parameters, at::Tensor in_block, const ConfigOf<Network>& config)
      : layout(std::move(of_parameters)), block(std::move(in_block)), network(Build(layout, block, config)) {}

  const ParameterLayout layout;
  const at::Tensor block;  // uint8, [layout.bytes], on any device
  const Network network;

 private:
  static Network Build(const ParameterLayout& layout, const at::Tensor& block, const ConfigOf<Network>& config) {
    BlockParameters parameters(layout, block);
    return Network(ParameterScope(parameters), config);
  }
};

// Compares what a file holds with its config, to compute in `dtype`. The file outlives the result. FailedPrecondition
//   MODEL_UNSUPPORTED  names each tensor that is missing, surplus or wrongly shaped (found and expected)
//   INTERNAL           names each tensor with values that are not finite in `dtype`
template <typename Network>
absl::StatusOr<StagedNetwork<Network>> StageNetwork(NetworkFile<Network> file, c10::ScalarType dtype) {
  ABSL_RETURN_IF_ERROR(file.weights.CheckFinite(dtype));
  auto parameters = std::make_shared<ParameterStager>(&file.weights, dtype);
  Network(ParameterScope(*parameters), file.config);
  if (const absl::Status complete = file.weights.CheckComplete(); !complete.ok()) {
    return ModelUnsupported(complete.message());
  }
  return StagedNetwork<Network>{std::move(file.config), std::move(parameters)};
}

// Lays a network out in a block of its layout's bytes, on the CPU.
template <typename Placed, typename Network>
std::shared_ptr<const Placed> PlaceNetwork(const StagedNetwork<Network>& staged, const at::Tensor& block) {
  staged.parameters->Fill(block);
  return std::make_shared<const Placed>(staged.parameters->layout(), block, staged.config);
}

// Copies a network into a block of as many bytes on any device. Does not wait for the copy.
template <typename Placed>
std::shared_ptr<const Placed> CopyNetwork(const Placed& placed, const at::Tensor& block) {
  block.copy_(placed.block, /*non_blocking=*/true);
  return std::make_shared<const Placed>(placed.layout, block, placed.network.config());
}

// Bytes of the block of such a network.
template <typename Network>
int64_t BlockBytes(const ConfigOf<Network>& config, c10::ScalarType dtype) {
  ParameterStager parameters(nullptr, dtype);
  Network(ParameterScope(parameters), config);
  return parameters.layout().bytes;
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_PLACED_NETWORK_H_
