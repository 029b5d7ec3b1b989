#include "src/scheduler/decode_line.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/synchronization/notification.h"

#include "src/base/exception_status.h"
#include "src/base/mutex.h"
#include "src/base/status_macros.h"
#include "src/image/image_encoder.h"
#include "src/pipeline/png_parameters.h"

namespace hotlora {
namespace {

ImageSources SourcesOf(const ImageTask& task) {
  ImageSources sources;
  for (const LeasedAdapter& adapter : task.adapters()) {
    sources.adapters.push_back({adapter.use, adapter.lease->info().content_sha256});
  }
  for (size_t i = 0; i < task.embeddings().size(); ++i) {
    sources.embeddings.push_back({task.job().embeddings[i].token, task.embeddings()[i].content_sha256});
  }
  for (const LeasedControl& control : task.controls()) {
    sources.controls.push_back({control.use, control.lease->info().content_sha256});
  }
  for (const LeasedImagePrompt& prompt : task.image_prompts()) {
    sources.image_prompts.push_back({prompt.use, prompt.lease->info().content_sha256});
  }
  return sources;
}

}  // namespace

DecodeLine::DecodeLine(Pipeline* pipeline, MemoryAdmission* memory, Metrics* metrics, EndTask end_task,
                       OnError on_error)
    : pipeline_(pipeline),
      memory_(memory),
      metrics_(metrics),
      end_task_(std::move(end_task)),
      on_error_(std::move(on_error)),
      thread_("decode") {}

absl::Status DecodeLine::WarmUp(const ImageJob& job, const Row& row) {
  return RunInTurn("", [&] {
    return memory_->CallVae(DecodeWork(job), [&](VaeForm form) { return pipeline_->Decode(row, form); }).status();
  });
}

absl::Status DecodeLine::EncodeInit(ImageTask& task, const InitPicture& picture) {
  return RunInTurn(task.job().caller, [&]() -> absl::Status {
    if (!task.BeginLoading()) {
      return absl::CancelledError("the request has ended");
    }
    const absl::Cleanup pause = [&task] { task.PauseLoading(); };
    ABSL_RETURN_IF_ERROR(task.Wanted());
    ABSL_ASSIGN_OR_RETURN(auto init, EncodePicture(task, task.job().denoise, picture));
    task.SetInit(std::move(init));
    return absl::OkStatus();
  });
}

absl::StatusOr<std::shared_ptr<const InitLatents>> DecodeLine::EncodePicture(ImageTask& task,
                                                                             const DenoiseOptions& options,
                                                                             const InitPicture& picture) {
  const Stopwatch stopwatch;
  absl::StatusOr<std::shared_ptr<const InitLatents>> init =
      memory_->CallVae(InitWork(options), [&](VaeForm form) { return pipeline_->EncodeInit(picture, form); });
  if (!init.ok()) {
    on_error_(init.status());
    return init.status();
  }
  task.summary.encode_seconds += stopwatch.Seconds();
  return init;
}

absl::Status DecodeLine::RunInTurn(absl::string_view caller, absl::FunctionRef<absl::Status()> work) {
  absl::Status status;
  absl::Notification done;
  thread_.Post(caller, [&] {
    status = CatchExceptions(work);
    done.Notify();
  });
  done.WaitForNotification();
  return status;
}

void DecodeLine::Decode(std::shared_ptr<ImageRun> run, RunningRow row) {
  Post(std::move(run), std::move(row), [this](ImageRun& of, RunningRow finished) {
    if (of.decode_status.ok()) {
      of.decode_status = CatchExceptions([&] { return DecodeRow(of, std::move(finished)); });
    }
  });
}

void DecodeLine::Refine(std::shared_ptr<ImageRun> run, RunningRow row, std::function<void()> woken) {
  Post(std::move(run), std::move(row), [this, woken = std::move(woken)](ImageRun& of, RunningRow finished) {
    const uint32_t image = finished.image;
    auto init = CatchExceptions([&]() -> absl::StatusOr<std::shared_ptr<const InitLatents>> {
      ABSL_RETURN_IF_ERROR(of.decode_status);
      return RefineRow(of, std::move(finished));
    });
    of.refined.Put({image, std::move(init), Stopwatch()});
    woken();
  });
}

void DecodeLine::Post(std::shared_ptr<ImageRun> run, RunningRow row, std::function<void(ImageRun&, RunningRow)> work) {
  {
    MutexLock lock(&mu_);
    ++length_;
  }
  auto held = std::make_shared<RunningRow>(std::move(row));  // std::function wants a copyable closure
  const std::string caller = run->job().caller;
  thread_.Post(caller, [this, run = std::move(run), held, work = std::move(work)] {
    work(*run, std::move(*held));
    held->row.reset();
    MutexLock lock(&mu_);
    --length_;
    changed_.SignalAll();
  });
}

void DecodeLine::Finish(std::shared_ptr<ImageRun> run) {
  absl::Status status = run->status;
  const std::string caller = run->job().caller;
  thread_.Post(caller, [this, run = std::move(run), status = std::move(status)] {
    run->conditioning = nullptr;
    run->hires_conditioning = nullptr;
    run->init = nullptr;
    run->to_refine.clear();
    run->refined.TakeAll();
    run->controls = run->hires_controls = nullptr;
    run->image_prompts = nullptr;
    end_task_(run->task, status.ok() ? run->decode_status : status, run->since_start.Seconds());
  });
}

uint32_t DecodeLine::length() const {
  MutexLock lock(&mu_);
  return length_;
}

void DecodeLine::AwaitShorterThan(uint32_t length) const {
  MutexLock lock(&mu_);
  while (length_ >= length) {
    changed_.Wait(&mu_);
  }
}

absl::StatusOr<RgbImage> DecodeLine::DecodePixels(ImageTask& task, const MemoryWork& work, RunningRow row) {
  ABSL_RETURN_IF_ERROR(task.Wanted());
  const Stopwatch stopwatch;
  absl::StatusOr<RgbImage> decoded =
      memory_->CallVae(work, [&](VaeForm form) { return pipeline_->Decode(*row.row, form); });
  row.row.reset();
  const double seconds = stopwatch.Seconds();
  metrics_->ObservePhase(RequestPhase::kDecode, seconds);
  task.summary.decode_seconds += seconds;
  if (!decoded.ok()) {
    on_error_(decoded.status());
  }
  return decoded;
}

absl::StatusOr<std::shared_ptr<const InitLatents>> DecodeLine::RefineRow(ImageRun& run, RunningRow row) {
  ImageTask& task = *run.task;
  const DenoiseOptions& second = *task.job().hires;
  InitPicture picture;
  ABSL_ASSIGN_OR_RETURN(picture.image, DecodePixels(task, DecodeWork(task.job().denoise), std::move(row)));
  ResizeInit(picture.image, second.width, second.height);
  const Stopwatch stopwatch;
  ABSL_ASSIGN_OR_RETURN(auto init, EncodePicture(task, second, picture));
  metrics_->ObservePhase(RequestPhase::kEncode, stopwatch.Seconds());
  return init;
}

absl::Status DecodeLine::DecodeRow(ImageRun& run, RunningRow row) {
  ImageTask& task = *run.task;
  const uint32_t image = row.image;
  ABSL_ASSIGN_OR_RETURN(const RgbImage decoded, DecodePixels(task, DecodeWork(task.job()), std::move(row)));
  const Stopwatch stopwatch;
  const ImageJob& job = task.job();
  std::string parameters = ImageParameters(job, job.seed + image, pipeline_->info(), SourcesOf(task));
  ABSL_ASSIGN_OR_RETURN(std::string data, EncodeImage(decoded, job.format, job.quality, parameters));
  const double seconds = stopwatch.Seconds();
  metrics_->ObservePhase(RequestPhase::kImageEncode, seconds);
  task.summary.decode_seconds += seconds;
  metrics_->CountImage(job.format);
  FinishedImage finished;
  finished.index = image;
  finished.seed = job.seed + image;
  finished.width = decoded.width;
  finished.height = decoded.height;
  finished.format = job.format;
  finished.data = std::move(data);
  finished.parameters = std::move(parameters);
  task.Tell([&finished](ImageListener& listener) { listener.OnImage(std::move(finished)); });
  return absl::OkStatus();
}

}  // namespace hotlora
