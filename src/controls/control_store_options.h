#ifndef HOTLORA_SRC_CONTROLS_CONTROL_STORE_OPTIONS_H_
#define HOTLORA_SRC_CONTROLS_CONTROL_STORE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace hotlora {

struct ControlStoreOptions {
  std::string controls;       // --controls; empty: there are none
  std::string image_prompts;  // --image-prompts, likewise
  std::string image_encoder;  // --image-encoder, likewise
  // Budgets of the tiers, set aside at start as those of adapters; nullopt: what the largest of each folder take
  // together, and no less than a ControlNet and an image prompt of the model's own size, so that a folder that holds
  // none yet has room for an upload.
  std::optional<uint64_t> host_bytes, device_bytes;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_CONTROLS_CONTROL_STORE_OPTIONS_H_
