#include "src/scheduler/request_loader.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

#include "src/adapters/encoder_fit.h"
#include "src/adapters/stored_kind.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/exception_status.h"
#include "src/base/mutex.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/request/control_check.h"

namespace hotlora {
namespace {

// What an image prompt is called in its store.
std::string KeyOf(const ImagePromptUse& use) { return absl::StrCat(kImagePromptKind.prefix, use.name); }

// The names in their store of all that a job needs beside adapters, each once: several controls may name one net.
std::vector<std::string> NetworksOf(const ImageJob& job) {
  std::vector<std::string> names;
  for (const ControlUse& use : job.controls) {
    if (!absl::c_linear_search(names, use.name)) {
      names.push_back(use.name);
    }
  }
  for (const ImagePromptUse& use : job.image_prompts) {
    names.push_back(KeyOf(use));
  }
  if (!job.image_prompts.empty()) {
    names.emplace_back(kImageEncoderKey);
  }
  return names;
}

bool WaitsForRoom(const absl::Status& status) {
  const std::string reason = GetErrorDetails(status).reason;
  return reason == error_reason::kAdaptersInUse || reason == error_reason::kControlsInUse;
}

// What the image encoder sees of pictures; of side 0 if that is not known, because its file was not read yet.
MiddleSquare EncoderSees(const AdapterStore& controls) {
  const absl::StatusOr<AdapterInfo> encoder = controls.Get(kImageEncoderKey);
  return encoder.ok() ? encoder->encoder.square : MiddleSquare();
}

// The caller names no encoder: if there is none, a part of the server is missing.
absl::Status EncoderIsNeeded(const absl::Status& status) {
  if (!absl::IsNotFound(status) || GetErrorDetails(status).reason != error_reason::kNoImageEncoder) {
    return status;
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kNoImageEncoder,
                   "image prompts need the folder of an image encoder (--image-encoder), which the server lacks");
}

}  // namespace

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
    const MiddleSquare seen = job.image_prompts.empty() ? MiddleSquare() : EncoderSees(*controls_);
    if (!job.image_prompts.empty() && seen.side == 0) {
      adapter_thread_.Post(job.caller, [this, task] { ReadEncoder(task); });
    } else {
      picture_thread_.Post(job.caller, [this, task, seen] { PreparePictures(task, seen); });
    }
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
         absl::c_any_of(NetworksOf(job), [this](const std::string& name) { return controls_->NeedsRead(name); });
}

// Adapter thread: for the first request with image prompts.
void RequestLoader::ReadEncoder(const TaskPtr& task) {
  if (!task->BeginLoading()) {
    return;
  }
  const Stopwatch stopwatch;
  absl::Status status = CatchExceptions([&] {
    return controls_->AcquireAll({std::string(kImageEncoderKey)}, [&task] { return task->Wanted(); }).status();
  });
  if (WaitsForRoom(status) && task->Wanted().ok()) {
    AwaitRoom(task);
    return;
  }
  task->PauseLoading(stopwatch.Seconds());
  Again(task, EncoderIsNeeded(status));
}

// After a piece of work that is not the last one.
void RequestLoader::Again(const TaskPtr& task, const absl::Status& status) {
  // Only now: a thread that cancelled the task before PauseLoading has taken it out of the queue and could not end it.
  absl::Status all = status;
  all.Update(task->Wanted());
  if (!all.ok()) {
    Fail(task, all);
  } else if (task->BeginLoading()) {  // until the lookup thread has it, which may be gone once every task has ended
    Load(task);
  }
}

// Picture thread: with an init image two pieces of work, the second on the decode thread.
void RequestLoader::PreparePictures(const TaskPtr& task, MiddleSquare seen) {
  // Before BeginLoading: a request that waits for room can end. If it has, nothing is decoded below.
  std::shared_ptr<const void> room = picture_room_->Take(ControlPictureBytes(task->job()));
  if (!task->BeginLoading()) {
    return;
  }
  InitPicture init;
  absl::Status status = CatchExceptions([&]() -> absl::Status {
    ABSL_RETURN_IF_ERROR(task->Wanted());
    ABSL_ASSIGN_OR_RETURN(RequestPictures pictures, decode_(task->job(), seen));
    init = std::move(pictures.init);
    task->SetControlPictures({std::move(pictures.controls), std::move(pictures.hires_controls), std::move(room)});
    task->SetImagePromptPictures({std::move(pictures.image_prompts), seen});
    return absl::OkStatus();
  });
  task->PauseLoading();
  status.Update(task->Wanted());  // an init image that is not wanted does not wait in the decode line
  if (status.ok() && task->job().has_init()) {
    status = scheduler_->decode_line().EncodeInit(*task, init);
  }
  Again(task, status);
}

// Lookup or adapter thread: the last piece of work. The step thread cannot take the task until it is ready, so a task
// that is no longer wanted ends here.
void RequestLoader::Acquire(const TaskPtr& task) {
  if (!task->BeginLoading()) {
    return;
  }
  const Stopwatch stopwatch;
  absl::StatusOr<LoadedFiles> loaded = CatchExceptions([&] { return LoadFiles(*task); });
  if (WaitsForRoom(loaded.status()) && task->Wanted().ok()) {
    AwaitRoom(task);
    return;
  }
  if (loaded.ok() && loaded->image_encoder != nullptr &&
      loaded->image_encoder->info().encoder.square != task->image_prompts_seen()) {
    // The encoder's folder was replaced, and the pictures were cut for the one before. All are decoded again; they give
    // back their room first, for which the request will ask again.
    loaded = LoadedFiles();
    task->TakeImagePromptPictures();
    task->TakeControlPictures();
    task->PauseLoading(stopwatch.Seconds());
    Again(task, absl::OkStatus());
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
  ABSL_RETURN_IF_ERROR(LeaseNetworks(task, loaded));
  return loaded;
}

absl::Status RequestLoader::LeaseNetworks(const ImageTask& task, LoadedFiles& loaded) {
  const ImageJob& job = task.job();
  const std::vector<std::string> names = NetworksOf(job);
  absl::StatusOr<std::vector<std::unique_ptr<AdapterLease>>> leases =
      controls_->AcquireAll(names, [&task] { return task.Wanted(); });
  if (!leases.ok()) {
    return EncoderIsNeeded(leases.status());
  }
  absl::flat_hash_map<std::string, std::shared_ptr<const AdapterLease>> by_name;
  for (size_t i = 0; i < names.size(); ++i) {
    by_name[names[i]] = std::move((*leases)[i]);
  }
  std::vector<uint32_t> types;
  for (const ControlUse& use : job.controls) {
    loaded.controls.push_back({&use, by_name.at(use.name)});
    types.push_back(loaded.controls.back().lease->info().control_types);
  }
  ABSL_RETURN_IF_ERROR(CheckControlTypes(job.controls, types));
  if (!job.image_prompts.empty()) {
    loaded.image_encoder = by_name.at(kImageEncoderKey);
  }
  for (const ImagePromptUse& use : job.image_prompts) {
    loaded.image_prompts.push_back({&use, by_name.at(KeyOf(use))});
    ABSL_RETURN_IF_ERROR(CheckEncoderFits(loaded.image_prompts.back().lease->info(), loaded.image_encoder->info()));
  }
  return absl::OkStatus();
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
