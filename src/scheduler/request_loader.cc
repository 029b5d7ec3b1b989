#include "src/scheduler/request_loader.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/exception_status.h"
#include "src/base/mutex.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/request/control_check.h"

namespace hotlora {

RequestLoader::RequestLoader(AdapterStore* adapters, AdapterStore* controls, EmbeddingStore* embeddings,
                             RequestQueue* queue, StepScheduler* scheduler, Metrics* metrics, DecodeFunction decode,
                             int64_t picture_bytes)
    : adapters_(adapters),
      controls_(controls),
      embeddings_(embeddings),
      queue_(queue),
      scheduler_(scheduler),
      metrics_(metrics),
      decode_(std::move(decode)),
      picture_room_(std::make_shared<PictureRoom>(picture_bytes)),
      adapter_thread_("adapter"),
      picture_thread_("picture"),
      lookup_thread_("lookup") {}

void RequestLoader::Load(const TaskPtr& task) {
  lookup_thread_.Post(task->job().caller, [this, task] { Continue(task); });
}

void RequestLoader::RunOnAdapterThread(const std::string& caller, std::function<void()> work) {
  adapter_thread_.Post(caller, std::move(work));
}

// A task goes from thread to thread, one piece of work at a time: Continue looks what is missing, and the thread that
// does it comes back to Continue, or ends with Acquire. During a piece of work (from BeginLoading to PauseLoading or
// EndLoading) no other thread can end the task. So after it this thread looks whether the task was cancelled meanwhile.

// Lookup thread: hands the task to the thread that its next piece of work belongs to.
void RequestLoader::Continue(const TaskPtr& task) {
  task->PauseLoading();
  const ImageJob& job = task->job();
  if (!task->has_pictures()) {
    picture_thread_.Post(job.caller, [this, task] { PreparePictures(task); });
  } else if (NeedsFiles(job)) {
    adapter_thread_.Post(job.caller, [this, task] { Acquire(task); });
  } else {
    Acquire(task);
  }
}

bool RequestLoader::NeedsFiles(const ImageJob& job) {
  return !job.embeddings.empty() ||
         std::any_of(job.adapters.begin(), job.adapters.end(),
                     [this](const AdapterUse& use) { return adapters_->NeedsRead(use.name); }) ||
         std::any_of(job.controls.begin(), job.controls.end(),
                     [this](const ControlUse& use) { return controls_->NeedsRead(use.name); });
}

// Picture thread: with an init image two pieces of work, the second on the decode thread.
void RequestLoader::PreparePictures(const TaskPtr& task) {
  // Before BeginLoading: a request that waits for room can end. If it has, nothing is decoded below.
  std::shared_ptr<const void> room = picture_room_->Take(ControlPictureBytes(task->job()));
  if (!task->BeginLoading()) {
    return;
  }
  InitPicture init;
  absl::Status status = CatchExceptions([&]() -> absl::Status {
    ABSL_RETURN_IF_ERROR(task->Wanted());
    ABSL_ASSIGN_OR_RETURN(RequestPictures pictures, decode_(task->job()));
    init = std::move(pictures.init);
    task->SetControlPictures({std::move(pictures.controls), std::move(pictures.hires_controls), std::move(room)});
    return absl::OkStatus();
  });
  task->PauseLoading();
  // Only now: a thread that cancelled the task before PauseLoading has taken it out of the queue and could not end it.
  status.Update(task->Wanted());
  if (status.ok() && task->job().has_init()) {
    status = scheduler_->decode_line().EncodeInit(*task, init);
  }
  if (!status.ok()) {
    Fail(task, status);
  } else if (task->BeginLoading()) {  // until the lookup thread has it, which may be gone once every task has ended
    Load(task);
  }
}

// Lookup or adapter thread: the last piece of work. The step thread cannot take the task until it is ready, so a task
// that is no longer wanted ends here.
void RequestLoader::Acquire(const TaskPtr& task) {
  if (!task->BeginLoading()) {
    return;
  }
  const Stopwatch stopwatch;
  absl::StatusOr<LoadedFiles> loaded = CatchExceptions([&] { return LoadFiles(*task); });
  const std::string reason = GetErrorDetails(loaded.status()).reason;
  if ((reason == error_reason::kAdaptersInUse || reason == error_reason::kControlsInUse) && task->Wanted().ok()) {
    AwaitRoom(task);
    return;
  }
  absl::Status status = loaded.status();
  task->EndLoading(loaded.ok() ? *std::move(loaded) : LoadedFiles(), stopwatch.Seconds());
  // Only now: a thread that cancelled the task before EndLoading has taken it out of the queue and could not end it.
  if (const absl::Status wanted = task->Wanted(); !wanted.ok()) {
    status = wanted;
  }
  if (!status.ok()) {
    if (!task->job().adapters.empty()) {
      metrics_->CountSwap(false);
    }
    Fail(task, status);
    return;
  }
  queue_->MarkReady(task);
}

absl::StatusOr<LoadedFiles> RequestLoader::LoadFiles(const ImageTask& task) {
  LoadedFiles loaded;
  // The embeddings first: they are small, and if one fails, no adapter has to be read.
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
  ABSL_ASSIGN_OR_RETURN(loaded.controls, LeaseControls(task));
  return loaded;
}

// Each net once, though several controls may name it.
absl::StatusOr<std::vector<LeasedControl>> RequestLoader::LeaseControls(const ImageTask& task) {
  const std::vector<ControlUse>& uses = task.job().controls;
  std::vector<std::string> names;
  for (const ControlUse& use : uses) {
    if (std::find(names.begin(), names.end(), use.name) == names.end()) {
      names.push_back(use.name);
    }
  }
  ABSL_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<AdapterLease>> leases,
                        controls_->AcquireAll(names, [&task] { return task.Wanted(); }));
  const std::vector<std::shared_ptr<const AdapterLease>> shared(std::make_move_iterator(leases.begin()),
                                                                std::make_move_iterator(leases.end()));
  std::vector<LeasedControl> controls;
  std::vector<uint32_t> types;
  for (const ControlUse& use : uses) {
    const size_t net = std::find(names.begin(), names.end(), use.name) - names.begin();
    controls.push_back({use, shared[net]});
    types.push_back(shared[net]->info().control_types);
  }
  ABSL_RETURN_IF_ERROR(CheckControlTypes(uses, types));
  return controls;
}

// The task must be in the list before this thread looks whether it is wanted: one that was cancelled meanwhile ends at
// the next RetryForRoom.
void RequestLoader::AwaitRoom(const TaskPtr& task) {
  task->PauseLoading();
  {
    MutexLock lock(&mu_);
    awaiting_room_.push_back(task);
  }
  EndIfUnwanted(task);
}

void RequestLoader::RetryForRoom() {
  std::vector<TaskPtr> waiting;
  {
    MutexLock lock(&mu_);
    waiting.swap(awaiting_room_);
  }
  for (const TaskPtr& task : waiting) {
    Load(task);
  }
}

void RequestLoader::EndIfUnwanted(const TaskPtr& task) {
  const absl::Status wanted = task->Wanted();
  if (!wanted.ok() && queue_->Remove(task)) {
    scheduler_->End(task, wanted);
  }
}

void RequestLoader::Fail(const TaskPtr& task, const absl::Status& status) {
  queue_->Remove(task);
  scheduler_->End(task, status);
}

}  // namespace hotlora
