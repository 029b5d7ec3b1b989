#include "src/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "absl/time/clock.h"

#include "src/adapters/adapter_store.h"
#include "src/adapters/embedding_store.h"
#include "src/adapters/file_upload.h"
#include "src/adapters/stored_kind.h"
#include "src/base/error_details.h"
#include "src/base/exception_status.h"
#include "src/base/logging.h"
#include "src/base/periodic_thread.h"
#include "src/base/resource_name.h"
#include "src/base/serial_executor.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/engine/model_watch.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/request/unavailable.h"
#include "src/scheduler/image_task.h"
#include "src/scheduler/request_loader.h"
#include "src/scheduler/request_queue.h"
#include "src/scheduler/step_scheduler.h"
#include "src/scheduler/watched_pipeline.h"
#include "src/scheduler/work_watch.h"

namespace hotlora {
namespace {

// The API promises a Waiting event at least every 5 s.
constexpr absl::Duration kWaitingEvery = absl::Seconds(4);
constexpr absl::Duration kWatchEvery = absl::Milliseconds(500);
// For requests that are cancelled at the end of a drain: a step is most often shorter.
constexpr absl::Duration kLastSteps = absl::Seconds(2);

absl::StatusOr<std::string> CheckName(absl::string_view name) {
  absl::StatusOr<std::string> normal = NormalizeName(name);
  if (!normal.ok()) {
    return InvalidRequest({{"name", std::string(normal.status().message())}});
  }
  return normal;
}

class LoadingStore final : public ServedStore {
 public:
  // All arguments outlive it; `loader` is read when a load begins. `prefix`: what `store` has before the names.
  LoadingStore(AdapterStore* store, absl::string_view prefix, const RequestQueue* queue,
               const std::unique_ptr<RequestLoader>* loader)
      : store_(store), prefix_(prefix), queue_(queue), loader_(loader) {}

  void Load(std::string name, AdapterTier tier, bool pin, std::string caller,
            std::function<void(absl::StatusOr<AdapterInfo>)> done) override {
    absl::StatusOr<std::string> normal = Key(name);
    if (!normal.ok()) {
      done(normal.status());
      return;
    }
    (*loader_)->RunOnAdapterThread(caller, [this, name = *std::move(normal), tier, pin, done = std::move(done)] {
      done(CatchExceptions([&] { return store_->Load(name, tier, pin); }));
    });
  }

  absl::StatusOr<AdapterInfo> Unload(absl::string_view name) override {
    ABSL_ASSIGN_OR_RETURN(const std::string normal, Key(name));
    return store_->Unload(normal);
  }

  absl::StatusOr<AdapterInfo> Get(absl::string_view name) const override {
    ABSL_ASSIGN_OR_RETURN(const std::string normal, Key(name));
    return store_->Get(normal);
  }

  absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view after, size_t limit) const override {
    return store_->List(absl::StrCat(prefix_, after), limit);
  }

  absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader header) override {
    if (queue_->closed()) {
      return DrainingError();
    }
    ABSL_RETURN_IF_ERROR(CheckHeader(header));  // here too: a bad name could begin as another kind's prefix
    header.name = absl::StrCat(prefix_, header.name);
    return store_->BeginUpload(std::move(header));
  }

  absl::Status Delete(absl::string_view name) override {
    ABSL_ASSIGN_OR_RETURN(const std::string normal, Key(name));
    return store_->Delete(normal);
  }

 private:
  // A name as the store has it.
  absl::StatusOr<std::string> Key(absl::string_view name) const {
    ABSL_ASSIGN_OR_RETURN(const std::string normal, CheckName(name));
    return absl::StrCat(prefix_, normal);
  }

  AdapterStore* const store_;
  const absl::string_view prefix_;
  const RequestQueue* const queue_;
  const std::unique_ptr<RequestLoader>* const loader_;
};

class ThreadedEngine final : public Engine {
 public:
  ThreadedEngine(EngineOptions options, std::unique_ptr<Pipeline> pipeline, std::unique_ptr<AdapterStore> adapters,
                 std::unique_ptr<AdapterStore> controls, std::unique_ptr<EmbeddingStore> embeddings, Metrics* metrics)
      : options_(std::move(options)),
        limits_{pipeline->info().native_size, pipeline->info().max_clip_skip, pipeline->info().unet_modules,
                pipeline->info().cross_attentions},
        metrics_(metrics),
        work_watch_(options_.work_limits),
        pipeline_(std::make_unique<WatchedPipeline>(std::move(pipeline), &work_watch_, options_.in_each_step)),
        adapters_(std::move(adapters)),
        controls_(std::move(controls)),
        embeddings_(std::move(embeddings)),
        queue_(options_.max_queue, options_.client_share),
        scheduler_(options_.batch, SchedulerEvents(), &queue_, pipeline_.get(), metrics),
        loader_(std::make_unique<RequestLoader>(adapters_.get(), controls_.get(), embeddings_.get(), &queue_,
                                                &scheduler_, metrics)),
        watch_(std::in_place, "watch", kWatchEvery, [this] { Watch(); }) {}

  ~ThreadedEngine() override {
    queue_.Close();
    CancelAll(DrainingError());
    queue_.AwaitEmpty(absl::InfiniteDuration());
    watch_.reset();
    loader_ = nullptr;
    queue_.Stop();
  }

  absl::Status WarmUp() override {
    ABSL_RETURN_IF_ERROR(scheduler_.AwaitWarmUp());
    accepting_ = true;
    return absl::OkStatus();
  }

  absl::StatusOr<Admission> Submit(const ImageRequest& request, std::shared_ptr<ImageListener> listener,
                                   std::function<void(const Admission&)> on_admitted) override {
    ABSL_ASSIGN_OR_RETURN(ImageJob job, ValidateImageRequest(request, limits_));
    if (!accepting_) {
      return StartingError();
    }
    if (!base_intact_) {
      return BaseDamagedError();
    }
    if (work_stuck_) {
      return WorkStuckError();
    }
    ABSL_RETURN_IF_ERROR(scheduler_.memory().CheckAlone(job));
    Admission admission;
    admission.request_id = job.request_id;
    admission.seed = job.seed;
    auto task = std::make_shared<ImageTask>(std::move(job), std::move(listener), options_.max_request_time);
    ABSL_ASSIGN_OR_RETURN(admission.queue_position, queue_.Admit(task));
    const absl::Status told = CatchExceptions([&] {
      on_admitted(admission);
      return absl::OkStatus();
    });
    if (!told.ok()) {
      task->Cancel(told);  // it is admitted, so it ends as every request does
    }
    queue_.Enqueue(task);
    if (task->job().adapters.empty() && task->job().embeddings.empty() && !task->job().has_pictures()) {
      queue_.MarkReady(task);
    } else {
      loader_->Load(task);
    }
    loader_->EndIfUnwanted(task);  // cancelled between Admit and Enqueue
    return admission;
  }

  void Cancel(absl::string_view request_id, const ImageListener* listener, absl::Status status) override {
    const std::shared_ptr<ImageTask> task = queue_.Find(request_id);
    if (task != nullptr && task->IsHeardBy(listener)) {
      task->Cancel(std::move(status));
      loader_->EndIfUnwanted(task);
      queue_.Wake();  // if its image is between two passes, no step is due at which the step thread would notice
    }
  }

  ServedStore& adapters() override { return served_adapters_; }
  ServedStore& controls() override { return served_controls_; }
  ServedStore& image_prompts() override { return served_image_prompts_; }
  ServedStore& image_encoder() override { return served_image_encoder_; }

  void VerifyBase(std::function<void(absl::StatusOr<BaseReport>)> done) override {
    scheduler_.base_watch().Report(std::move(done));
  }

  EngineStatistics Statistics() const override {
    EngineStatistics statistics;
    statistics.memory = pipeline_->memory();
    statistics.device_memory = options_.device_memory ? options_.device_memory() : MemoryStats{};
    statistics.adapters = adapters_->Statistics();
    statistics.controls = controls_->Statistics();
    statistics.base = scheduler_.base_watch().total();
    statistics.queue_depth = queue_.depth();
    statistics.queue_capacity = queue_.capacity();
    statistics.costs = scheduler_.costs();
    statistics.uptime_seconds = since_start_.Seconds();
    return statistics;
  }

  const ModelInfo& model() const override { return pipeline_->info(); }
  const EngineOptions& options() const override { return options_; }
  const RequestLimits& limits() const override { return limits_; }
  uint32_t queue_depth() const override { return queue_.depth(); }

  bool Drain(absl::Duration timeout) override {
    queue_.Close();
    if (queue_.AwaitEmpty(timeout)) {
      return true;
    }
    CancelAll(DrainingError());
    if (!queue_.AwaitEmpty(kLastSteps)) {
      for (const auto& task : queue_.All()) {
        task->EndForCaller(DrainingError());
      }
    }
    return false;
  }

 private:
  StepScheduler::Events SchedulerEvents() {
    StepScheduler::Events events;
    events.on_device_failure = options_.on_device_failure;
    events.on_base_state = [this](bool intact) { NoticeBase(intact); };
    events.on_release = [this] { loader_->RetryForRoom(); };
    return events;
  }

  void NoticeBase(bool intact) {
    base_intact_ = intact;
    if (options_.on_base_state) {
      options_.on_base_state(intact);
    }
  }

  // First all are marked, then those who wait are ended: none starts in the meantime.
  void CancelAll(const absl::Status& status) {
    const std::vector<std::shared_ptr<ImageTask>> tasks = queue_.All();
    for (const auto& task : tasks) {
      task->Cancel(status);
    }
    for (const auto& task : tasks) {
      loader_->EndIfUnwanted(task);
    }
    queue_.Wake();
  }

  // Watch thread.
  void Watch() {
    CheckWork();
    const SerialExecutor::Load load = loader_->adapter_load();
    metrics_->SetAdapterJobs(load.seconds, load.waiting);
    WatchRequests();
  }

  void CheckWork() {
    const std::vector<StuckWork> stuck = work_watch_.Check();
    const bool was_stuck = work_stuck_.exchange(!stuck.empty());
    if ((was_stuck || !stuck.empty()) && options_.on_stuck_work) {
      options_.on_stuck_work(stuck);
    }
  }

  // Tells those who wait that they do, and ends those whose time is up.
  void WatchRequests() {
    loader_->RetryForRoom();
    std::optional<double> oldest_seconds;
    double newcomer_seconds = 0;
    for (const RequestQueue::Waiting& waiting : queue_.Snapshot()) {
      const std::shared_ptr<ImageTask>& task = waiting.task;
      loader_->EndIfUnwanted(task);
      ImageWaiting news;
      news.queue_position = waiting.position;
      news.stage = task->loading() ? WaitStage::kAdapter : WaitStage::kQueue;
      news.estimated_seconds = waiting.estimated_seconds;
      task->TellWaiting(news, kWaitingEvery);
      oldest_seconds = std::max(oldest_seconds.value_or(0.0), task->seconds_since_admitted());
      newcomer_seconds = waiting.estimated_seconds;
    }
    metrics_->SetWaiting(oldest_seconds.has_value() ? absl::Now() - absl::Seconds(*oldest_seconds) : absl::UnixEpoch(),
                         newcomer_seconds);
  }

  const EngineOptions options_;
  const RequestLimits limits_;
  Metrics* const metrics_;

  WorkWatch work_watch_;
  const std::unique_ptr<Pipeline> pipeline_;
  const std::unique_ptr<AdapterStore> adapters_;
  const std::unique_ptr<AdapterStore> controls_;
  const std::unique_ptr<EmbeddingStore> embeddings_;
  const Stopwatch since_start_;
  std::atomic<bool> accepting_ = false;
  std::atomic<bool> base_intact_ = true;
  std::atomic<bool> work_stuck_ = false;

  RequestQueue queue_;
  StepScheduler scheduler_;
  std::unique_ptr<RequestLoader> loader_;  // ends before the scheduler, which it calls
  LoadingStore served_adapters_{adapters_.get(), kAdapterKind.prefix, &queue_, &loader_};
  LoadingStore served_controls_{controls_.get(), kControlKind.prefix, &queue_, &loader_};
  LoadingStore served_image_prompts_{controls_.get(), kImagePromptKind.prefix, &queue_, &loader_};
  LoadingStore served_image_encoder_{controls_.get(), kImageEncoderKind.prefix, &queue_, &loader_};

  std::optional<PeriodicThread> watch_;  // last: it uses all the others
};

}  // namespace

std::unique_ptr<Engine> Engine::Create(EngineOptions options, std::unique_ptr<Pipeline> pipeline,
                                       std::unique_ptr<AdapterStore> adapters, std::unique_ptr<AdapterStore> controls,
                                       std::unique_ptr<EmbeddingStore> embeddings, Metrics* metrics) {
  return std::make_unique<ThreadedEngine>(std::move(options), std::move(pipeline), std::move(adapters),
                                          std::move(controls), std::move(embeddings), metrics);
}

}  // namespace hotlora
