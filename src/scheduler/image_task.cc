#include "src/scheduler/image_task.h"

#include <utility>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/mutex.h"
#include "src/base/steady_time.h"

namespace hotlora {

ImageTask::ImageTask(ImageJob job, std::shared_ptr<ImageListener> listener, absl::Duration longest)
    : job_(std::move(job)),
      limit_(SteadyNow() + longest),
      listener_identity_(listener.get()),
      listener_(std::move(listener)),
      last_told_(SteadyNow()) {}

void ImageTask::Cancel(absl::Status status) {
  MutexLock lock(&mu_);
  if (cancel_status_.ok()) {
    cancel_status_ = std::move(status);
  }
}

absl::Status ImageTask::Wanted() const {
  MutexLock lock(&mu_);
  if (!cancel_status_.ok()) {
    return cancel_status_;
  }
  const absl::Time now = SteadyNow();
  if (now >= job_.deadline) {
    return CallDeadlinePassed();
  }
  if (now >= limit_) {
    return MakeError(absl::StatusCode::kDeadlineExceeded, error_reason::kRequestTimeLimit,
                     "the request took longer than the server allows");
  }
  return absl::OkStatus();
}

bool ImageTask::BeginLoading() {
  MutexLock lock(&mu_);
  loading_ = !end_claimed_;
  return loading_;
}

void ImageTask::EndLoading(LoadedFiles loaded, double seconds) {
  MutexLock lock(&mu_);
  loading_ = false;
  loaded_ = std::move(loaded);
  load_seconds_ += seconds;
  AdapterSet ranged;
  for (const LeasedAdapter& adapter : loaded_.adapters) {
    const AdapterInfo& info = adapter.lease->info();
    const AdapterUse& use = adapter.use;
    ranged.Add(
        {adapter.lease->weights(), info.content_sha256, use.weight, use.text_encoder_weight, use.range, use.blocks},
        info.targets);
  }
  schedule_ = AdapterSchedule(ranged, job_.denoise.evaluations());
  if (job_.hires.has_value()) {
    hires_schedule_ = AdapterSchedule(ranged, job_.hires->evaluations());
    hires_fingerprint_ = hires_schedule_.fingerprint();
  }
  fingerprint_ = schedule_.fingerprint();
}

void ImageTask::PauseLoading(double seconds) {
  MutexLock lock(&mu_);
  load_seconds_ += seconds;
  loading_ = false;
}

void ImageTask::SetInit(std::shared_ptr<const InitLatents> init) {
  MutexLock lock(&mu_);
  init_ = std::move(init);
}

void ImageTask::SetControlPictures(ControlPictures pictures) {
  MutexLock lock(&mu_);
  control_pictures_ = std::move(pictures);
}

void ImageTask::SetImagePromptPictures(ImagePromptPictures pictures) {
  MutexLock lock(&mu_);
  image_prompt_pictures_ = std::move(pictures);
}

MiddleSquare ImageTask::image_prompts_seen() const {
  MutexLock lock(&mu_);
  return image_prompt_pictures_.seen;
}

bool ImageTask::has_pictures() const {
  MutexLock lock(&mu_);
  return (!job_.has_init() || init_ != nullptr) && control_pictures_.first.size() == job_.controls.size() &&
         image_prompt_pictures_.squares.size() == job_.image_prompts.size();
}

bool ImageTask::CheckAdapters(absl::FunctionRef<bool(const AdapterSchedule&)> check, Pass pass) const {
  MutexLock lock(&mu_);
  return !end_claimed_ && check(pass == Pass::kFirst ? schedule_ : hires_schedule_);
}

Prompts ImageTask::prompts() const {
  Prompts prompts = job().prompts;
  for (size_t i = 0; i < embeddings().size(); ++i) {
    prompts.embeddings.push_back({job().embeddings[i].token, embeddings()[i].vectors});
  }
  return prompts;
}

std::shared_ptr<const InitLatents> ImageTask::TakeInit() {
  MutexLock lock(&mu_);
  return std::move(init_);
}

ControlPictures ImageTask::TakeControlPictures() {
  MutexLock lock(&mu_);
  return std::exchange(control_pictures_, {});
}

ImagePromptPictures ImageTask::TakeImagePromptPictures() {
  MutexLock lock(&mu_);
  return std::exchange(image_prompt_pictures_, {});
}

bool ImageTask::loading() const {
  MutexLock lock(&mu_);
  return loading_;
}

bool ImageTask::ClaimEnd() {
  MutexLock lock(&mu_);
  if (end_claimed_ || loading_) {
    return false;
  }
  end_claimed_ = true;
  return true;
}

void ImageTask::ReleaseFiles() {
  std::shared_ptr<const InitLatents> released_init;  // these are destroyed after the lock is released
  LoadedFiles released;                              // after the schedules: the weights go before their leases
  AdapterSchedule released_schedule, released_hires_schedule;
  ControlPictures released_pictures;
  ImagePromptPictures released_image_prompts;
  MutexLock lock(&mu_);
  std::swap(released_image_prompts, image_prompt_pictures_);
  std::swap(released_pictures, control_pictures_);
  std::swap(released_init, init_);
  std::swap(released, loaded_);
  std::swap(released_schedule, schedule_);
  std::swap(released_hires_schedule, hires_schedule_);
}

void ImageTask::Tell(absl::FunctionRef<void(ImageListener&)> call) {
  MutexLock lock(&listener_mu_);
  if (listener_ != nullptr) {
    call(*listener_);
    last_told_ = SteadyNow();
  }
}

void ImageTask::TellWaiting(const ImageWaiting& waiting, absl::Duration every) {
  MutexLock lock(&listener_mu_);
  if (listener_ != nullptr && SteadyNow() - last_told_ >= every) {
    listener_->OnWaiting(waiting);
    last_told_ = SteadyNow();
  }
}

void ImageTask::TellEnd(const absl::Status& status) { TellLast(status, summary); }

// What the other thread has written of the summary cannot be read meanwhile.
void ImageTask::EndForCaller(const absl::Status& status) { TellLast(status, {}); }

void ImageTask::TellLast(const absl::Status& status, const ImageSummary& told) {
  std::shared_ptr<ImageListener> listener;
  MutexLock lock(&listener_mu_);
  listener = std::exchange(listener_, nullptr);
  if (listener != nullptr) {
    listener->OnEnd(status, told);
  }
}

}  // namespace hotlora
