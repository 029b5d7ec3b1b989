#ifndef HOTLORA_SERVER_STARTUP_H_
#define HOTLORA_SERVER_STARTUP_H_

// What is done with an engine before the first call reaches it: pins for serving, or --check
// instead of serving.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "src/engine/engine.h"

namespace hotlora {

// Loads and pins the adapters of these names; the error names the first that fails. Blocks.
absl::Status LoadPinned(ServedStore& store, absl::string_view flag, const std::vector<std::string>& names);

// Loads and pins the ControlNets of these names, and the image prompts of those that no ControlNet has.
absl::Status LoadPinnedControls(Engine& engine, const std::vector<std::string>& names);

// The answer to --check.
struct CheckReport {
  bool ok = false;   // every file that could be an adapter can be served
  std::string text;  // model, memory plan, and a line for each adapter: its name and state
};

// Loads each adapter of the folder, one after the other. Blocks.
CheckReport CheckModelAndAdapters(Engine& engine);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_STARTUP_H_
