#ifndef HOTLORA_SRC_REQUEST_MODEL_INFO_H_
#define HOTLORA_SRC_REQUEST_MODEL_INFO_H_

// The served model, as plain values: what it is, how adapters take effect on it, where it lies in memory.

#include <cstdint>
#include <string>
#include <vector>

namespace hotlora {

// Constant once the pipeline exists.
struct ModelInfo {
  std::string name;    // last part of the checkpoint's path
  std::string sha256;  // of its weights
  std::string dtype;   // "float32", "bfloat16", "float16"
  std::string device;  // "cpu" or "cuda:N"
  uint32_t native_size = 1024;
  uint32_t max_clip_skip = 0;
  std::vector<std::string> unet_modules;      // names of what adapters may change, in diffusers' spelling; sorted
  std::vector<std::string> cross_attentions;  // of the UNet, likewise: what image prompts act on
};

// --apply: who chooses how adapters take effect (ApplyMode in pipeline.h).
enum class ApplyPolicy { kAuto, kMerged, kSide };

// An adapter that is merged into the base at start (--base-adapter NAME:WEIGHT).
struct BaseAdapter {
  std::string name;
  double weight = 1.0;  // on UNet and text encoders
};

// A part of the memory plan.
struct MemoryArea {
  std::string what;   // "unet live weights"
  std::string where;  // "cpu", "cuda:0"
  uint64_t bytes = 0;
};

// What checks of base weights found: of one module, of one round of all modules, or since the start.
struct BaseReport {
  uint64_t modules_checked = 0;
  uint64_t mismatches = 0;
  uint64_t repaired = 0;
  bool intact = true;  // as of now
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_MODEL_INFO_H_
