#ifndef HOTLORA_SRC_ENGINE_ENGINE_FACTORY_H_
#define HOTLORA_SRC_ENGINE_ENGINE_FACTORY_H_

// Makes an engine over a real checkpoint: the only file that names the SDXL pipeline. A target of its own, so that
// engine.h and its tests link without LibTorch.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "src/adapters/adapter_store.h"
#include "src/adapters/embedding_store.h"
#include "src/controls/control_store_options.h"
#include "src/engine/engine.h"
#include "src/metrics/metrics.h"
#include "src/request/model_info.h"

namespace hotlora {

struct EngineConfig {
  std::string model;                  // diffusers-layout folder or single-file checkpoint
  std::string model_config;           // configs for a single file; empty: stock SDXL's
  std::string vae;                    // another VAE, folder or file; empty: the checkpoint's
  std::string device = "auto";        // auto, cpu, cuda, cuda:N
  std::string dtype = "auto";         // auto, float32, bfloat16, float16
  std::string vae_dtype = "float32";  // float32, bfloat16, float16
  AdapterStoreOptions adapters;
  uint64_t adapter_host_bytes = uint64_t{4} << 30;    // --adapter-host-bytes: set aside at start
  uint64_t adapter_device_bytes = uint64_t{2} << 30;  // --adapter-device-bytes: allocated at start
  uint64_t conditioning_bytes = uint64_t{64} << 20;   // --conditioning-cache-bytes: allocated at start
  std::vector<BaseAdapter> base_adapters;             // in order; the model's sha256 names them too
  EmbeddingStoreOptions embeddings;                   // its widths are the model's
  ControlStoreOptions controls;
  // What a weight other than 1 means for a DoRA: true interpolates between the weights without and with it, false
  // scales its change before the norm, as PEFT does.
  bool interpolate_dora = false;
  EngineOptions engine;  // its max_request_time is overridden by the next field
  // nullopt: 300 s on CUDA, none on the CPU.
  std::optional<absl::Duration> max_request_time;
};

// How long a request may take: `config.max_request_time`, or the device's default. Errors of ResolvePlace.
absl::StatusOr<absl::Duration> LongestRequest(const EngineConfig& config);

// Loads the model, opens the adapter folder and makes `metrics` show device memory, queue and model. Blocks for as long
// as reading the checkpoint takes. Call at most once in a process before another thread makes tensors: it installs the
// counting CPU allocator. `metrics` outlives the engine. Errors of ResolvePlace, SdxlModel::Load,
// AdapterStore::Create and, for base adapters, AdapterStore::Acquire.
absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(EngineConfig config, Metrics* metrics);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ENGINE_ENGINE_FACTORY_H_
