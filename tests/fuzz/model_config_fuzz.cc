// A checkpoint's configs. The input is one object with a member for each file, which is laid over stock SDXL's.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

#include "src/base/json_text.h"
#include "src/sampling/scheduler_config.h"
#include "src/sdxl/sdxl_config.h"
#include "src/weights/sdxl_base_configs.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto json = hotlora::ParseJsonObject(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (!json.ok()) {
    return 0;
  }
  hotlora::CheckpointConfigs configs = hotlora::SdxlBaseConfigs();
  const std::pair<const char*, nlohmann::json*> files[] = {
      {"model_index", &configs.model_index},
      {"unet", &configs.unet_config},
      {"vae", &configs.vae_config},
      {"text_encoder", &configs.text_encoder_config},
      {"text_encoder_2", &configs.text_encoder_2_config},
      {"scheduler", &configs.scheduler_config},
  };
  for (const auto& [key, config] : files) {
    const auto found = json->find(key);
    if (found != json->end() && found->is_object()) {
      config->update(*found);
    } else if (found != json->end()) {
      *config = *found;
    }
  }
  const auto config = hotlora::ParseSdxlConfig(configs);
  if (config.ok() && (config->unet.levels.empty() || config->vae.channels.empty() || config->text_encoder.heads < 1)) {
    std::abort();
  }
  const auto schedule = hotlora::ParseSchedulerConfig(configs.scheduler_config);
  if (schedule.ok() && schedule->num_train_timesteps < 2) {
    std::abort();
  }
  return 0;
}
