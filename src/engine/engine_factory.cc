#include "src/engine/engine_factory.h"

#include <filesystem>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/adapters/adapter_weights.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/controls/control_store.h"
#include "src/engine/model_watch.h"
#include "src/pipeline/sdxl_pipeline.h"
#include "src/sdxl/sdxl_model.h"
#include "src/tensor/device.h"
#include "src/tensor/memory_stats.h"

namespace hotlora {
namespace {

constexpr absl::Duration kModelWatchPeriod = absl::Minutes(1);
constexpr absl::Duration kLongestOnCuda = absl::Seconds(300);

// The folder's name, or the file's without .safetensors.
std::string ModelName(const std::filesystem::path& path) {
  if (!path.has_filename()) {
    return path.parent_path().filename();
  }
  return path.extension() == ".safetensors" ? path.stem() : path.filename();
}

// Lends the base adapters for as long as their weights are needed: at start, and when a base weight must be rebuilt.
std::function<absl::StatusOr<AdapterSet>()> BaseAdapterSource(AdapterStore* store, std::vector<BaseAdapter> wanted) {
  if (wanted.empty()) {
    return nullptr;
  }
  return [store, wanted = std::move(wanted)]() -> absl::StatusOr<AdapterSet> {
    AdapterSet set;
    for (const BaseAdapter& adapter : wanted) {
      const auto lease = store->Acquire(adapter.name);
      if (!lease.ok()) {
        return absl::Status(lease.status().code(),
                            absl::StrCat("--base-adapter ", adapter.name, ": ", lease.status().message()));
      }
      set.adapters.push_back({(*lease)->weights(), (*lease)->info().content_sha256, adapter.weight, adapter.weight});
    }
    return set;
  };
}

void ConnectMetrics(const Engine& engine, c10::Device device, const std::string& adapters_folder, Metrics& metrics) {
  GaugeSources sources;
  sources.device = engine.model().device;
  sources.device_memory = [device] { return GetMemoryStats(device); };
  sources.queue_depth = [&engine] { return engine.queue_depth(); };
  sources.queue_capacity = engine.options().max_queue;
  sources.batch_capacity = engine.options().batch.max_batch;
  sources.adapters_folder = adapters_folder;
  metrics.SetSources(std::move(sources));
  metrics.SetBuildInfo(HOTLORA_VERSION, HOTLORA_LIBTORCH_VERSION);
  metrics.SetModelInfo(engine.model().name, engine.model().sha256, engine.model().dtype, engine.model().device);
}

}  // namespace

absl::StatusOr<absl::Duration> LongestRequest(const EngineConfig& config) {
  if (config.max_request_time.has_value()) {
    return *config.max_request_time;
  }
  ABSL_ASSIGN_OR_RETURN(const ComputePlace place, ResolvePlace(config.device, config.dtype, config.vae_dtype));
  return place.device.is_cuda() ? kLongestOnCuda : absl::InfiniteDuration();
}

absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(EngineConfig config, Metrics* metrics) {
  InstallCountingCpuAllocator();
  const Stopwatch stopwatch;
  const std::string adapters_folder = config.adapters.directory;
  ABSL_ASSIGN_OR_RETURN(const ComputePlace place, ResolvePlace(config.device, config.dtype, config.vae_dtype));
  CheckpointSource source(config.model);
  source.model_config = config.model_config;
  source.vae = config.vae;
  LogInfo("loading the model on ", DeviceName(place.device), " in ", DtypeName(place.dtype), ", its VAE in ",
          DtypeName(place.vae_dtype));
  ABSL_ASSIGN_OR_RETURN(std::unique_ptr<SdxlModel> model, SdxlModel::Load(source, place));
  config.engine.model_watch = std::make_shared<ModelWatch>(
      model->files(), kModelWatchPeriod, [metrics](bool changed) { metrics->SetModelFilesChanged(changed); });
  ModuleTable modules = model->modules();
  const std::string name = ModelName(config.model);
  config.embeddings.widths = {model->config().text_encoder.width, model->config().text_encoder_2.width};
  const DoraWeighting dora = config.interpolate_dora ? DoraWeighting::kInterpolated : DoraWeighting::kScaledChange;
  ABSL_ASSIGN_OR_RETURN(std::unique_ptr<AdapterMemory> memory,
                        MakeAdapterMemory(place, config.adapter_host_bytes, config.adapter_device_bytes));
  ABSL_ASSIGN_OR_RETURN(
      std::unique_ptr<AdapterStore> adapters,
      AdapterStore::Create(std::move(config.adapters), std::move(modules), &metrics->adapters(), std::move(memory)));
  ABSL_ASSIGN_OR_RETURN(std::unique_ptr<AdapterStore> controls,
                        MakeControlStore(config.controls, model->config(), place, &metrics->controls()));
  BaseSource base{std::move(source), BaseAdapterSource(adapters.get(), std::move(config.base_adapters))};
  ABSL_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> pipeline,
                        MakeSdxlPipeline(std::move(model), name, dora, std::move(base), config.conditioning_bytes));
  config.engine.device_memory = [device = place.device] { return GetMemoryStats(device); };
  ABSL_ASSIGN_OR_RETURN(std::unique_ptr<EmbeddingStore> embeddings, EmbeddingStore::Create(config.embeddings));
  ABSL_ASSIGN_OR_RETURN(config.engine.max_request_time, LongestRequest(config));
  std::unique_ptr<Engine> engine = Engine::Create(std::move(config.engine), std::move(pipeline), std::move(adapters),
                                                  std::move(controls), std::move(embeddings), metrics);
  ConnectMetrics(*engine, place.device, adapters_folder, *metrics);
  metrics->SetStartUp(StartUpPhase::kLoad, stopwatch.Seconds());
  return engine;
}

}  // namespace hotlora
