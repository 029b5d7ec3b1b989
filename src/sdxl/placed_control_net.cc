#include "src/sdxl/placed_control_net.h"

#include <iterator>
#include <utility>

#include "src/base/status_macros.h"
#include "src/sdxl/controlnet_file.h"

namespace hotlora {

absl::StatusOr<StagedNetwork<ControlNet>> StageControlNet(const SafetensorsFile& file,
                                                          const std::optional<std::string>& config,
                                                          const SdxlConfig& model, c10::ScalarType dtype,
                                                          const std::string& config_name) {
  ABSL_ASSIGN_OR_RETURN(NetworkFile<ControlNet> read, ReadControlNet(file, config, model, config_name));
  return StageNetwork(std::move(read), dtype);
}

int64_t UsualControlNetBytes(const SdxlConfig& model, c10::ScalarType dtype) {
  ControlNetConfig config;
  config.encoder = model.unet;
  config.hint_channels.assign(std::begin(kUsualHintChannels), std::end(kUsualHintChannels));
  config.types = ControlTypesConfig{/*count=*/8, /*layers=*/1};
  return BlockBytes<ControlNet>(config, dtype);
}

}  // namespace hotlora
