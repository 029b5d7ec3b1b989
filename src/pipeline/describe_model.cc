#include "src/pipeline/describe_model.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "src/sdxl/image_prompt_config.h"
#include "src/tensor/device.h"

namespace hotlora {
namespace {

// A bias stands in the table under the name of its module.
std::vector<std::string> UnetModules(const ModuleTable& table) {
  std::vector<std::string> names;
  for (const AdaptableModule& module : table.modules) {
    if (module.component == Component::kUnet && !module.is_bias) {
      names.push_back(module.path);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

ModelInfo DescribeModel(const SdxlModel& model, std::string name) {
  const SdxlConfig& config = model.config();
  ModelInfo info;
  info.name = std::move(name);
  info.sha256 = model.sha256();
  info.dtype = DtypeName(model.place().dtype);
  info.device = DeviceName(model.place().device);
  info.native_size = static_cast<uint32_t>(config.native_size());
  info.unet_modules = UnetModules(model.modules());
  for (CrossAttentionPlace& place : CrossAttentions(config)) {
    info.cross_attentions.push_back(std::move(place.path));
  }
  std::sort(info.cross_attentions.begin(), info.cross_attentions.end());
  // A skip of all layers but one still leaves the first layer's output.
  info.max_clip_skip = static_cast<uint32_t>(std::min(config.text_encoder.layers, config.text_encoder_2.layers) - 1);
  return info;
}

std::vector<MemoryArea> WeightAreas(const SdxlModel& model) {
  const std::string where = DeviceName(model.place().device);
  const WeightBytes& bytes = model.weight_bytes();
  return {{"text encoder weights", where, bytes.text_encoders},
          {"unet weights", where, bytes.unet},
          {"vae weights", where, bytes.vae},
          {"clean weights of adaptable modules", where, bytes.clean}};
}

}  // namespace hotlora
