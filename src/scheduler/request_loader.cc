#include "src/scheduler/request_loader.h"

#include <algorithm>
#include <utility>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/exception_status.h"
#include "src/base/mutex.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"

namespace hotlora {

RequestLoader::RequestLoader(AdapterStore* adapters, EmbeddingStore* embeddings, RequestQueue* queue,
                             StepScheduler* scheduler, Metrics* metrics, DecodeFunction decode)
    : adapters_(adapters),
      embeddings_(embeddings),
      queue_(queue),
      scheduler_(scheduler),
      metrics_(metrics),
      decode_(std::move(decode)),
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
  if (job.has_init() && !task->has_init()) {
    picture_thread_.Post(job.caller, [this, task] { PrepareInit(task); });
  } else if (NeedsFiles(job)) {
    adapter_thread_.Post(job.caller, [this, task] { Acquire(task); });
  } else {
    Acquire(task);
  }
}

bool RequestLoader::NeedsFiles(const ImageJob& job) {
  return !job.embeddings.empty() ||
         std::any_of(job.adapters.begin(), job.adapters.end(),
                     [this](const AdapterUse& use) { return adapters_->NeedsRead(use.name); });
}

// Picture thread: two pieces of work, the second on the decode thread.
void RequestLoader::PrepareInit(const TaskPtr& task) {
  if (!task->BeginLoading()) {
    return;
  }
  InitPicture picture;
  absl::Status status = CatchExceptions([&]() -> absl::Status {
    ABSL_RETURN_IF_ERROR(task->Wanted());
    ABSL_ASSIGN_OR_RETURN(picture, decode_(task->job()));
    return absl::OkStatus();
  });
  task->PauseLoading();
  // Only now: a thread that cancelled the task before PauseLoading has taken it out of the queue and could not end it.
  status.Update(task->Wanted());
  if (status.ok()) {
    status = scheduler_->decode_line().EncodeInit(*task, picture);
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
  if (GetErrorDetails(loaded.status()).reason == error_reason::kAdaptersInUse && task->Wanted().ok()) {
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
  return loaded;
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
