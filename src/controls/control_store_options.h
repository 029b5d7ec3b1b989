#ifndef HOTLORA_SRC_CONTROLS_CONTROL_STORE_OPTIONS_H_
#define HOTLORA_SRC_CONTROLS_CONTROL_STORE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace hotlora {

struct ControlStoreOptions {
  std::string directory;  // --controls; empty: there are none
  // Budgets of the tiers, set aside at start as those of adapters; nullopt: what the largest net of the folder takes,
  // and no less than a net of the model's own size, so that a folder that holds none yet has room for an upload.
  std::optional<uint64_t> host_bytes, device_bytes;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_CONTROLS_CONTROL_STORE_OPTIONS_H_
