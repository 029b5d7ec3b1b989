#include "src/scheduler/step_scheduler.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/named_thread.h"
#include "src/base/status_macros.h"
#include "src/image/image_encoder.h"
#include "src/pipeline/png_parameters.h"

namespace hotlora {
namespace {

// Requests whose images may wait for the decode thread before the step thread pauses: bounds the memory they hold.
constexpr uint32_t kMaxDecoding = 2;
// A step thread that has had nothing to do for so long checks the base weights, a module at a time.
constexpr absl::Duration kIdleAfter = absl::Milliseconds(100);
constexpr uint32_t kWarmUpSteps = 4;
// A machine this slow measures its baseline with the first step alone.
constexpr double kSlowStepSeconds = 2.0;

class Stopwatch {
 public:
  double Seconds() const { return absl::ToDoubleSeconds(absl::Now() - start_); }

 private:
  const absl::Time start_ = absl::Now();
};

const char* FormatLabel(ImageFormat format) {
  static constexpr const char* kNames[] = {"png", "jpeg", "webp", "raw_rgb8"};
  return kNames[static_cast<int>(format)];
}

TierLabel LabelOf(AdapterTier tier) { return static_cast<TierLabel>(tier); }

}  // namespace

struct StepScheduler::Run {
  explicit Run(std::shared_ptr<ImageTask> of_task) : task(std::move(of_task)) {}

  std::shared_ptr<ImageTask> task;
  AdapterSet adapters;
  std::shared_ptr<const Conditioning> conditioning;
  std::shared_ptr<const InitLatents> init;  // nullptr: from noise alone
  Stopwatch since_start;
  absl::Status decode_status;  // of the first image that failed; decode thread only
};

StepScheduler::StepScheduler(StepSchedulerOptions options, RequestQueue* queue, Pipeline* pipeline, Metrics* metrics)
    : options_(std::move(options)),
      queue_(queue),
      pipeline_(pipeline),
      metrics_(metrics),
      decode_thread_("decode"),
      step_thread_(StartNamedThread("step", [this] { StepThread(); })) {}

StepScheduler::~StepScheduler() { step_thread_.join(); }

absl::Status StepScheduler::AwaitWarmUp() {
  warmed_up_.WaitForNotification();
  return warm_up_status_;
}

void StepScheduler::StepThread() {
  warm_up_status_ = WarmUp();
  warmed_up_.Notify();
  while (!queue_->stopped()) {
    metrics_->BeatScheduler();
    const std::shared_ptr<QueuedRequest> request = queue_->TakeReady(kIdleAfter);
    if (request == nullptr) {
      VerifyWhileIdle();
      continue;
    }
    RunTask(std::static_pointer_cast<ImageTask>(request));
    absl::MutexLock lock(&mu_);
    const auto room = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return decoding_ < kMaxDecoding; };
    mu_.Await(absl::Condition(&room));
  }
}

void StepScheduler::VerifyWhileIdle() {
  const absl::StatusOr<bool> intact = pipeline_->VerifyNextModule();
  if (!intact.ok()) {
    NoticeDeviceFailure(intact.status());
  } else if (!*intact) {
    metrics_->CountBaseRestoreMismatch();
  }
}

absl::Status StepScheduler::WarmUp() {
  const Stopwatch stopwatch;
  for (const bool cfg : {false, true}) {
    ABSL_RETURN_IF_ERROR(MeasureBaseline(cfg));
  }
  const double seconds = stopwatch.Seconds();
  metrics_->SetStartUp(StartUpPhase::kWarmUp, seconds);
  LogInfo("warm-up took ", seconds, " s");
  return absl::OkStatus();
}

absl::Status StepScheduler::MeasureBaseline(bool cfg) {
  DenoiseOptions options;
  options.width = options.height = pipeline_->info().native_size;
  options.steps = kWarmUpSteps;
  options.guidance_scale = cfg ? 5.0 : 1.0;
  const float size = static_cast<float>(options.width);
  options.size_ids = options.negative_size_ids = {size, size, 0, 0, size, size};
  Prompts prompts;
  prompts.negative_prompt = "";
  ABSL_ASSIGN_OR_RETURN(auto conditioning, pipeline_->Encode(prompts, cfg, AdapterSet{}, ApplyMode::kMerged));
  ABSL_ASSIGN_OR_RETURN(auto row, pipeline_->StartRow(options, 0, std::move(conditioning), AdapterSet{}, nullptr));
  double fastest = 0.0;
  while (!row->done()) {
    const bool first = row->steps_done() == 0;
    const Stopwatch stopwatch;
    ABSL_RETURN_IF_ERROR(pipeline_->Step(BatchPlan{{row.get()}}));
    const double seconds = stopwatch.Seconds();
    // The first step pays for what is made once (kernels chosen, workspaces), so it counts only where it is all there
    // is.
    fastest = row->steps_done() <= 2 ? seconds : std::min(fastest, seconds);
    if (first && seconds > kSlowStepSeconds) {
      break;
    }
  }
  metrics_->SetStepBaseline({options.width, options.height, 1, cfg}, fastest);
  if (row->done() && cfg) {
    ABSL_RETURN_IF_ERROR(pipeline_->Decode(*row).status());
  }
  return absl::OkStatus();
}

void StepScheduler::RunTask(const std::shared_ptr<ImageTask>& task) {
  const double queue_seconds = absl::ToDoubleSeconds(absl::Now() - task->admitted());
  metrics_->ObserveQueueWait(queue_seconds);
  metrics_->ObserveStage(StageLabel::kQueue, queue_seconds);
  task->summary.queue_seconds = queue_seconds;
  auto run = std::make_shared<Run>(task);
  absl::Status status = Prepare(*run);
  if (status.ok()) {
    status = Denoise(run);
  }
  NoticeDeviceFailure(status);
  {
    absl::MutexLock lock(&mu_);
    ++decoding_;
  }
  // In line after this run's rows.
  decode_thread_.Post([this, run = std::move(run), status] { FinishRun(*run, status); });
}

absl::Status StepScheduler::Prepare(Run& run) {
  const ImageJob& job = run.task->job();
  ImageSummary& summary = run.task->summary;
  summary.model_sha256 = pipeline_->info().sha256;
  summary.dtype = pipeline_->info().dtype;
  summary.sampler = job.denoise.sampler;
  summary.schedule = job.denoise.schedule;
  summary.width = job.denoise.width;
  summary.height = job.denoise.height;
  ABSL_RETURN_IF_ERROR(run.task->Wanted());
  ABSL_RETURN_IF_ERROR(ApplyAdapters(run));
  ABSL_RETURN_IF_ERROR(run.task->Wanted());
  const Stopwatch stopwatch;
  ABSL_ASSIGN_OR_RETURN(run.conditioning, pipeline_->Encode(job.prompts, job.denoise.cfg(), run.adapters, mode()));
  if (const std::unique_ptr<const InitPicture> picture = run.task->TakePicture(); picture != nullptr) {
    ABSL_ASSIGN_OR_RETURN(run.init, pipeline_->EncodeInit(*picture));
  }
  summary.encode_seconds = stopwatch.Seconds();
  metrics_->ObserveStage(StageLabel::kEncode, summary.encode_seconds);
  return absl::OkStatus();
}

absl::Status StepScheduler::ApplyAdapters(Run& run) {
  ImageTask& task = *run.task;
  AcquireReport acquired;
  AdapterTier coldest = AdapterTier::kDevice;
  for (const LeasedAdapter& adapter : task.adapters()) {
    const AdapterInfo& info = adapter.lease->info();
    const AcquireReport& report = adapter.lease->report();
    run.adapters.Add(
        {adapter.lease->weights(), info.content_sha256, adapter.use.weight, adapter.use.text_encoder_weight},
        info.targets);
    task.summary.adapters.push_back({info.name, info.content_sha256, adapter.use.weight, report.tier_found,
                                     info.matched_modules, info.unmatched_keys});
    acquired.lookup_seconds += report.lookup_seconds;
    acquired.read_seconds += report.read_seconds;
    acquired.parse_seconds += report.parse_seconds;
    acquired.upload_seconds += report.upload_seconds;
    coldest = std::min(coldest, report.tier_found);
  }
  const Stopwatch stopwatch;
  const absl::StatusOr<SwapReport> swap = pipeline_->Apply(run.adapters, mode());
  task.summary.adapter_seconds = task.load_seconds() + stopwatch.Seconds();
  metrics_->ObserveStage(StageLabel::kAdapter, task.summary.adapter_seconds);
  if (!swap.ok()) {
    metrics_->CountSwap(false);
    return swap.status();
  }
  if (!swap->changed) {
    return absl::OkStatus();
  }
  metrics_->CountSwap(true);
  const TierLabel source = LabelOf(coldest);
  metrics_->ObserveSwapPhase(SwapPhase::kLookup, source, acquired.lookup_seconds);
  if (coldest == AdapterTier::kDisk) {
    metrics_->ObserveSwapPhase(SwapPhase::kRead, source, acquired.read_seconds);
    metrics_->ObserveSwapPhase(SwapPhase::kParse, source, acquired.parse_seconds);
  }
  if (acquired.upload_seconds > 0.0) {
    metrics_->ObserveSwapPhase(SwapPhase::kUpload, source, acquired.upload_seconds);
  }
  if (swap->modules_merged > 0) {
    metrics_->ObserveSwapPhase(SwapPhase::kApply, source, swap->apply_seconds);
  }
  if (swap->modules_restored > 0) {
    metrics_->ObserveSwapPhase(SwapPhase::kRestore, source, swap->restore_seconds);
  }
  metrics_->ObserveSwapPhase(SwapPhase::kTotal, source, task.summary.adapter_seconds);
  return absl::OkStatus();
}

absl::Status StepScheduler::Denoise(const std::shared_ptr<Run>& run) {
  const ImageJob& job = run->task->job();
  for (uint32_t first = 0; first < job.num_images; first += options_.max_batch) {
    std::vector<std::unique_ptr<Row>> rows;
    for (uint32_t image = first; image < std::min(first + options_.max_batch, job.num_images); ++image) {
      ABSL_ASSIGN_OR_RETURN(
          auto row, pipeline_->StartRow(job.denoise, job.seed + image, run->conditioning, run->adapters, run->init));
      rows.push_back(std::move(row));
    }
    ABSL_RETURN_IF_ERROR(DenoiseRows(*run, first, rows));
    for (uint32_t i = 0; i < rows.size(); ++i) {
      // std::function wants a copyable closure.
      auto row = std::make_shared<std::unique_ptr<Row>>(std::move(rows[i]));
      decode_thread_.Post([this, run, image = first + i, row] { Decode(*run, image, std::move(*row)); });
    }
  }
  metrics_->ObserveStage(StageLabel::kDenoise, run->task->summary.denoise_seconds);
  return absl::OkStatus();
}

absl::Status StepScheduler::DenoiseRows(Run& run, uint32_t first_image, std::vector<std::unique_ptr<Row>>& rows) {
  const DenoiseOptions& options = run.task->job().denoise;
  BatchPlan plan;
  plan.mode = mode();
  for (const auto& row : rows) {
    plan.rows.push_back(row.get());
  }
  double step_seconds = 0.0;
  while (!rows.front()->done()) {
    ABSL_RETURN_IF_ERROR(run.task->Wanted());
    const uint32_t steps_before = rows.front()->steps_done();
    const StepShape shape{options.width, options.height, static_cast<uint32_t>(rows.size()),
                          options.cfg_at(steps_before, rows.front()->total_steps())};
    const Stopwatch stopwatch;
    ABSL_RETURN_IF_ERROR(pipeline_->Step(plan));
    const double seconds = stopwatch.Seconds();
    metrics_->ObserveStep(shape, seconds);
    run.task->summary.denoise_seconds += seconds;
    step_seconds += seconds;
    // A sampler of two evaluations a step (Heun) has done a step only after the second.
    if (rows.front()->steps_done() == steps_before) {
      continue;
    }
    for (uint32_t i = 0; i < rows.size(); ++i) {
      ImageProgress progress{first_image + i, rows[i]->steps_done(), rows[i]->total_steps(), step_seconds, ""};
      if (options.preview_at(progress.step)) {
        ABSL_ASSIGN_OR_RETURN(progress.preview, Preview(*rows[i]));
      }
      run.task->Tell([&progress](ImageListener& listener) { listener.OnProgress(progress); });
    }
    step_seconds = 0.0;
  }
  return absl::OkStatus();
}

// An eighth of the image's width and height, so the JPEG takes some hundred microseconds.
absl::StatusOr<std::string> StepScheduler::Preview(const Row& row) {
  constexpr uint32_t kQuality = 80;
  ABSL_ASSIGN_OR_RETURN(const RgbImage image, pipeline_->Preview(row));
  return EncodeImage(image, ImageFormat::kJpeg, kQuality, "");
}

void StepScheduler::Decode(Run& run, uint32_t image, std::unique_ptr<Row> row) {
  ImageTask& task = *run.task;
  if (run.decode_status.ok()) {
    run.decode_status = task.Wanted();
  }
  if (!run.decode_status.ok()) {
    return;
  }
  const Stopwatch stopwatch;
  const absl::StatusOr<RgbImage> decoded = pipeline_->Decode(*row);
  row.reset();
  const double decode_seconds = stopwatch.Seconds();
  metrics_->ObserveStage(StageLabel::kDecode, decode_seconds);
  if (!decoded.ok()) {
    run.decode_status = decoded.status();
    NoticeDeviceFailure(run.decode_status);
    return;
  }
  const ImageJob& job = task.job();
  std::vector<NamedAdapter> adapters;
  for (const LeasedAdapter& adapter : task.adapters()) {
    adapters.push_back({adapter.use, adapter.lease->info().content_sha256});
  }
  absl::StatusOr<std::string> data = EncodeImage(*decoded, job.format, job.quality,
                                                 ImageParameters(job, job.seed + image, pipeline_->info(), adapters));
  metrics_->ObserveStage(StageLabel::kImageEncode, stopwatch.Seconds() - decode_seconds);
  task.summary.decode_seconds += stopwatch.Seconds();
  if (!data.ok()) {
    run.decode_status = data.status();
    return;
  }
  metrics_->CountImage(FormatLabel(job.format));
  FinishedImage finished{image, job.seed + image, decoded->width, decoded->height, job.format, *std::move(data)};
  task.Tell([&finished](ImageListener& listener) { listener.OnImage(std::move(finished)); });
}

void StepScheduler::FinishRun(Run& run, const absl::Status& status) {
  run.conditioning = nullptr;
  run.init = nullptr;
  run.adapters = {};
  End(run.task, status.ok() ? run.decode_status : status, run.since_start.Seconds());
  absl::MutexLock lock(&mu_);
  --decoding_;
}

void StepScheduler::End(const std::shared_ptr<ImageTask>& task, const absl::Status& status, double run_seconds) {
  if (!task->ClaimEnd()) {
    return;
  }
  task->ReleaseAdapters();
  task->summary.total_seconds = absl::ToDoubleSeconds(absl::Now() - task->admitted());
  queue_->Forget(task, run_seconds);
  task->TellDone(status);
}

void StepScheduler::NoticeDeviceFailure(const absl::Status& status) {
  if (status.ok() || GetErrorDetails(status).reason != "DEVICE_FAILED") {
    return;
  }
  {
    absl::MutexLock lock(&mu_);
    if (std::exchange(device_failed_, true)) {
      return;
    }
  }
  LogError("the device is lost: ", status.message());
  if (options_.on_device_failure) {
    options_.on_device_failure();
  }
}

}  // namespace hotlora
