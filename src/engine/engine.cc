#include "src/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "src/admission/request_queue.h"
#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/named_thread.h"
#include "src/base/resource_name.h"
#include "src/base/serial_executor.h"
#include "src/base/status_macros.h"
#include "src/pipeline/init_picture.h"
#include "src/scheduler/image_task.h"
#include "src/scheduler/step_scheduler.h"

namespace hotlora {
namespace {

// The API promises a Waiting event at least every 5 s.
constexpr absl::Duration kWaitingEvery = absl::Seconds(4);
constexpr absl::Duration kWatchEvery = absl::Milliseconds(500);

absl::StatusOr<std::string> CheckName(absl::string_view name) {
  absl::StatusOr<std::string> normal = NormalizeName(name);
  if (!normal.ok()) {
    return InvalidRequest({{"name", std::string(normal.status().message())}});
  }
  return normal;
}

class ThreadedEngine final : public Engine {
 public:
  ThreadedEngine(EngineOptions options, std::unique_ptr<Pipeline> pipeline, std::unique_ptr<AdapterStore> adapters,
                 std::unique_ptr<EmbeddingStore> embeddings, Metrics* metrics)
      : options_(std::move(options)),
        limits_{pipeline->info().native_size, pipeline->info().max_clip_skip},
        metrics_(metrics),
        pipeline_(std::move(pipeline)),
        adapters_(std::move(adapters)),
        embeddings_(std::move(embeddings)),
        queue_(options_.max_queue),
        scheduler_({options_.max_batch, options_.apply, options_.longest_overtaking, options_.on_device_failure,
                    [this](bool intact) { NoticeBase(intact); }, options_.in_each_step, [this] { RetryForRoom(); }},
                   &queue_, pipeline_.get(), metrics),
        adapter_thread_(std::make_unique<SerialExecutor>("adapter")),
        lookup_thread_(std::make_unique<SerialExecutor>("lookup")),
        watch_thread_(StartNamedThread("watch", [this] { Watch(); })) {}

  ~ThreadedEngine() override {
    queue_.Close();
    CancelAll(MakeError(absl::StatusCode::kUnavailable, "DRAINING", "the server is shutting down"));
    queue_.AwaitEmpty(absl::InfiniteDuration());
    {
      absl::MutexLock lock(&mu_);
      stopping_ = true;
    }
    watch_thread_.join();
    lookup_thread_ = nullptr;
    adapter_thread_ = nullptr;
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
      return MakeError(absl::StatusCode::kUnavailable, "the server is starting", {"STARTING", {}, absl::Seconds(1)});
    }
    if (!base_intact_) {
      return MakeError(absl::StatusCode::kUnavailable, "the model's weights are damaged in memory",
                       {"BASE_DAMAGED", {}, absl::Seconds(10)});
    }
    Admission admission{job.request_id, job.seed, 0};
    const absl::Time now = absl::Now();
    auto task = std::make_shared<ImageTask>(std::move(job), std::move(listener), now, now + options_.max_request_time);
    ABSL_ASSIGN_OR_RETURN(admission.queue_position, queue_.Admit(task));
    on_admitted(admission);
    queue_.Enqueue(task);
    if (task->job().adapters.empty() && task->job().embeddings.empty() && !task->job().has_init()) {
      queue_.MarkReady(task);
    } else {
      lookup_thread_->Post([this, task] { LookUpFor(task); });
    }
    EndIfUnwanted(task);  // cancelled between Admit and Enqueue
    return admission;
  }

  void Cancel(absl::string_view request_id, const ImageListener* listener, absl::Status status) override {
    const auto task = std::static_pointer_cast<ImageTask>(queue_.Find(request_id));
    if (task != nullptr && task->IsHeardBy(listener)) {
      task->Cancel(std::move(status));
      EndIfUnwanted(task);
    }
  }

  void LoadAdapter(std::string name, AdapterTier tier, bool pin,
                   std::function<void(absl::StatusOr<AdapterInfo>)> done) override {
    absl::StatusOr<std::string> normal = CheckName(name);
    if (!normal.ok()) {
      done(normal.status());
      return;
    }
    lookup_thread_->Post([this, name = *std::move(normal), tier, pin, done = std::move(done)] {
      adapter_thread_->Post([this, name, tier, pin, done] { done(adapters_->Load(name, tier, pin)); });
    });
  }

  absl::StatusOr<AdapterInfo> UnloadAdapter(absl::string_view name) override {
    ABSL_ASSIGN_OR_RETURN(const std::string normal, CheckName(name));
    return adapters_->Unload(normal);
  }

  absl::StatusOr<AdapterInfo> GetAdapter(absl::string_view name) const override {
    ABSL_ASSIGN_OR_RETURN(const std::string normal, CheckName(name));
    return adapters_->Get(normal);
  }

  absl::StatusOr<std::vector<AdapterInfo>> ListAdapters(absl::string_view after, size_t limit) const override {
    return adapters_->List(after, limit);
  }

  absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader header) override {
    if (queue_.closed()) {
      return DrainingError();
    }
    return adapters_->BeginUpload(std::move(header));
  }

  absl::Status DeleteAdapter(absl::string_view name) override {
    ABSL_ASSIGN_OR_RETURN(const std::string normal, CheckName(name));
    return adapters_->Delete(normal);
  }

  void VerifyBase(std::function<void(absl::StatusOr<BaseReport>)> done) override {
    scheduler_.base_watch().Report(std::move(done));
  }

  EngineStatistics Statistics() const override {
    EngineStatistics statistics;
    statistics.memory = pipeline_->memory();
    statistics.device_memory = options_.device_memory ? options_.device_memory() : DeviceMemory{};
    statistics.adapters = adapters_->Statistics();
    statistics.base = scheduler_.base_watch().total();
    statistics.queue_depth = queue_.depth();
    statistics.queue_capacity = queue_.capacity();
    statistics.uptime_seconds = absl::ToDoubleSeconds(absl::Now() - started_);
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
    queue_.AwaitEmpty(absl::InfiniteDuration());
    return false;
  }

 private:
  void NoticeBase(bool intact) {
    base_intact_ = intact;
    if (options_.on_base_state) {
      options_.on_base_state(intact);
    }
  }

  // Lookup thread: a request whose adapters are all resident does not wait for files that others need read.
  void LookUpFor(const std::shared_ptr<ImageTask>& task) {
    const std::vector<AdapterUse>& uses = task->job().adapters;
    const auto needs_read = [this](const AdapterUse& use) { return adapters_->NeedsRead(use.name); };
    if (task->job().has_init() || !task->job().embeddings.empty() ||
        std::any_of(uses.begin(), uses.end(), needs_read)) {
      adapter_thread_->Post([this, task] { LoadFor(task); });
    } else {
      LoadFor(task);
    }
  }

  // Lookup or adapter thread: decodes the request's init image, reads its embeddings and lends it its adapters. Until
  // it is marked ready the step thread cannot take it, so where there is nothing to run for, it ends here.
  void LoadFor(const std::shared_ptr<ImageTask>& task) {
    if (!task->BeginLoading()) {
      return;
    }
    absl::StatusOr<std::unique_ptr<const InitPicture>> picture = DecodeInit(task->job());
    const absl::Time start = absl::Now();
    absl::StatusOr<LoadedFiles> loaded = picture.ok() ? Load(*task) : absl::StatusOr<LoadedFiles>(picture.status());
    if (loaded.ok()) {
      loaded->picture = *std::move(picture);
    }
    const absl::Status wanted = task->Wanted();
    const absl::Status status = wanted.ok() ? loaded.status() : wanted;
    if (GetErrorDetails(status).reason == "ADAPTERS_IN_USE") {
      AwaitRoom(task);
      return;
    }
    task->EndLoading(loaded.ok() ? *std::move(loaded) : LoadedFiles(), absl::ToDoubleSeconds(absl::Now() - start));
    if (!status.ok()) {
      if (picture.ok() && !task->job().adapters.empty()) {
        metrics_->CountSwap(false);
      }
      queue_.Remove(task);
      scheduler_.End(task, status);
      return;
    }
    queue_.MarkReady(task);
    EndIfUnwanted(task);
  }

  // Puts off a task whose adapters do not fit beside those that others use, until one of them ends. It still waits in
  // the queue, where its deadline or a cancel ends it.
  void AwaitRoom(const std::shared_ptr<ImageTask>& task) {
    task->PauseLoading();
    {
      absl::MutexLock lock(&mu_);
      awaiting_room_.push_back(task);
    }
    EndIfUnwanted(task);
  }

  // Tries again for all that wait for room, in the order in which they came to.
  void RetryForRoom() {
    std::vector<std::shared_ptr<ImageTask>> waiting;
    {
      absl::MutexLock lock(&mu_);
      waiting.swap(awaiting_room_);
    }
    for (const std::shared_ptr<ImageTask>& task : waiting) {
      lookup_thread_->Post([this, task] { LookUpFor(task); });
    }
  }

  // nullptr where there is none.
  static absl::StatusOr<std::unique_ptr<const InitPicture>> DecodeInit(const ImageJob& job) {
    if (!job.has_init()) {
      return nullptr;
    }
    ABSL_ASSIGN_OR_RETURN(InitPicture picture, LoadInitPicture(job));
    return std::make_unique<const InitPicture>(std::move(picture));
  }

  absl::StatusOr<LoadedFiles> Load(const ImageTask& task) {
    LoadedFiles loaded;
    // The embeddings first: they are small, and one that fails spares an adapter's reading.
    for (const EmbeddingUse& use : task.job().embeddings) {
      ABSL_RETURN_IF_ERROR(task.Wanted());
      ABSL_ASSIGN_OR_RETURN(Embedding embedding, embeddings_->Read(use.name));
      loaded.embeddings.push_back(std::move(embedding));
    }
    const std::vector<AdapterUse>& uses = task.job().adapters;
    std::vector<std::string> names;
    for (const AdapterUse& use : uses) {
      names.push_back(use.name);
    }
    ABSL_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<AdapterLease>> leases,
                          adapters_->AcquireAll(names, [&task] { return task.Wanted(); }));
    for (size_t i = 0; i < uses.size(); ++i) {
      loaded.adapters.push_back({uses[i], std::move(leases[i])});
    }
    return loaded;
  }

  // Ends a task that nobody wants any more where it still waits. One that runs ends itself at its next step, one whose
  // adapters are being read when that is over.
  void EndIfUnwanted(const std::shared_ptr<ImageTask>& task) {
    const absl::Status wanted = task->Wanted();
    if (!wanted.ok() && queue_.Remove(task)) {
      scheduler_.End(task, wanted);
    }
  }

  // First all are marked, then those who wait are ended: none starts in the meantime.
  void CancelAll(const absl::Status& status) {
    const auto requests = queue_.All();
    for (const auto& request : requests) {
      std::static_pointer_cast<ImageTask>(request)->Cancel(status);
    }
    for (const auto& request : requests) {
      EndIfUnwanted(std::static_pointer_cast<ImageTask>(request));
    }
  }

  // Watch thread: tells those who wait that they do, and ends those whose time is up.
  void Watch() {
    while (true) {
      {
        absl::MutexLock lock(&mu_);
        if (mu_.AwaitWithTimeout(absl::Condition(&stopping_), kWatchEvery)) {
          return;
        }
      }
      RetryForRoom();
      absl::Time oldest = absl::InfiniteFuture();
      double newcomer_seconds = 0;
      for (const RequestQueue::Waiting& waiting : queue_.Snapshot()) {
        const auto task = std::static_pointer_cast<ImageTask>(waiting.request);
        EndIfUnwanted(task);
        const WaitStage stage = task->loading() ? WaitStage::kAdapter : WaitStage::kQueue;
        task->TellWaiting({waiting.position, stage, waiting.estimated_seconds}, kWaitingEvery);
        oldest = std::min(oldest, task->admitted());
        newcomer_seconds = waiting.estimated_seconds;
      }
      metrics_->SetWaiting(oldest == absl::InfiniteFuture() ? absl::UnixEpoch() : oldest, newcomer_seconds);
    }
  }

  const EngineOptions options_;
  const RequestLimits limits_;
  Metrics* const metrics_;

  absl::Mutex mu_;  // before the scheduler, which calls back
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::shared_ptr<ImageTask>> awaiting_room_ ABSL_GUARDED_BY(mu_);

  const std::unique_ptr<Pipeline> pipeline_;
  const std::unique_ptr<AdapterStore> adapters_;
  const std::unique_ptr<EmbeddingStore> embeddings_;
  const absl::Time started_ = absl::Now();
  std::atomic<bool> accepting_ = false;
  std::atomic<bool> base_intact_ = true;

  RequestQueue queue_;
  StepScheduler scheduler_;
  std::unique_ptr<SerialExecutor> adapter_thread_;
  std::unique_ptr<SerialExecutor> lookup_thread_;

  std::thread watch_thread_;  // last: it uses all the others
};

}  // namespace

std::unique_ptr<Engine> Engine::Create(EngineOptions options, std::unique_ptr<Pipeline> pipeline,
                                       std::unique_ptr<AdapterStore> adapters,
                                       std::unique_ptr<EmbeddingStore> embeddings, Metrics* metrics) {
  return std::make_unique<ThreadedEngine>(std::move(options), std::move(pipeline), std::move(adapters),
                                          std::move(embeddings), metrics);
}

}  // namespace hotlora
