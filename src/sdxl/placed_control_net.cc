#include "src/sdxl/placed_control_net.h"

#include <iterator>
#include <utility>

#include "src/base/status_macros.h"
#include "src/sdxl/controlnet_file.h"
#include "src/weights/model_unsupported.h"

namespace hotlora {
namespace {

ControlNet Build(ParameterSource& source, const ControlNetConfig& config) {
  return ControlNet(ParameterScope(source), config);
}

ControlNet BuildFrom(const ParameterLayout& layout, const at::Tensor& block, const ControlNetConfig& config) {
  BlockParameters parameters(layout, block);
  return Build(parameters, config);
}

}  // namespace

PlacedControlNet::PlacedControlNet(ParameterLayout of_parameters, at::Tensor in_block, const ControlNetConfig& config)
    : layout(std::move(of_parameters)), block(std::move(in_block)), network(BuildFrom(layout, block, config)) {}

absl::StatusOr<StagedControlNet> StageControlNet(const SafetensorsFile& file, const std::optional<std::string>& config,
                                                 const SdxlConfig& model, c10::ScalarType dtype,
                                                 const std::string& config_name) {
  ABSL_ASSIGN_OR_RETURN(ControlNetFile read, ReadControlNet(file, config, model, config_name));
  ABSL_RETURN_IF_ERROR(read.weights.CheckFinite(dtype));
  auto parameters = std::make_shared<ParameterStager>(&read.weights, dtype);
  Build(*parameters, read.config);
  if (const absl::Status complete = read.weights.CheckComplete(); !complete.ok()) {
    return ModelUnsupported(complete.message());
  }
  return StagedControlNet{std::move(read.config), std::move(parameters)};
}

std::shared_ptr<const PlacedControlNet> PlaceControlNet(const StagedControlNet& staged, const at::Tensor& block) {
  staged.parameters->Fill(block);
  return std::make_shared<const PlacedControlNet>(staged.parameters->layout(), block, staged.config);
}

std::shared_ptr<const PlacedControlNet> CopyControlNet(const PlacedControlNet& net, const at::Tensor& block) {
  block.copy_(net.block, /*non_blocking=*/true);
  return std::make_shared<const PlacedControlNet>(net.layout, block, net.network.config());
}

int64_t UsualControlNetBytes(const SdxlConfig& model, c10::ScalarType dtype) {
  ControlNetConfig config;
  config.encoder = model.unet;
  config.hint_channels.assign(std::begin(kUsualHintChannels), std::end(kUsualHintChannels));
  config.types = ControlTypesConfig{/*count=*/8, /*layers=*/1};
  ParameterStager parameters(nullptr, dtype);
  Build(parameters, config);
  return parameters.layout().bytes;
}

}  // namespace hotlora
