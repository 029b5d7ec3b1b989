#include "src/scheduler/step_scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/exception_status.h"
#include "src/base/logging.h"
#include "src/base/named_thread.h"
#include "src/base/status_macros.h"
#include "src/image/image_encoder.h"
#include "src/scheduler/batch_policy.h"
#include "src/scheduler/request_summary.h"
#include "src/scheduler/warm_up.h"

namespace hotlora {
namespace {

// A step thread that has had nothing to do for so long checks the base weights, a module at a time.
constexpr absl::Duration kIdleAfter = absl::Milliseconds(100);
// A set that has had the device to itself for so many steps of side branches is merged: sooner, and two requests in
// turn would have weights rebuilt between them.
constexpr uint32_t kStepsBeforeMerging = 8;

bool IsDeviceFailure(const absl::Status& status) {
  return GetErrorDetails(status).reason == error_reason::kDeviceFailed;
}

}  // namespace

struct StepScheduler::Candidate {
  RunPtr run;  // nullptr: it is only ready
  std::shared_ptr<ImageTask> task;
};

StepScheduler::StepScheduler(StepSchedulerOptions options, RequestQueue* queue, Pipeline* pipeline, Metrics* metrics)
    : options_(std::move(options)),
      queue_(queue),
      pipeline_(pipeline),
      metrics_(metrics),
      mode_(ModeFor(options_.apply, /*mixed=*/false)),
      row_limit_(options_.max_batch),
      memory_(pipeline, metrics),
      base_watch_(pipeline, metrics, options_.on_base_state),
      decode_line_(
          pipeline, &memory_, metrics,
          [this](const std::shared_ptr<ImageTask>& task, const absl::Status& status, double seconds) {
            End(task, status, seconds);
          },
          [this](const absl::Status& status) { NoticeDeviceFailure(status); }),
      step_thread_(StartNamedThread("step", [this] { StepThread(); })) {}

StepScheduler::~StepScheduler() { step_thread_.join(); }

absl::Status StepScheduler::AwaitWarmUp() {
  warmed_up_.WaitForNotification();
  return warm_up_status_;
}

void StepScheduler::StepThread() {
  warm_up_status_ = WarmUp(*pipeline_, memory_, *metrics_, decode_line_, options_.max_batch);
  warmed_up_.Notify();
  while (!queue_->stopped()) {
    metrics_->BeatScheduler();
    DropEnded();
    FillRows();
    if (Rows().empty()) {
      AwaitWork();
    } else {
      StepAll();
      HandOnFinishedRows();
      if (base_watch_.IsDue()) {
        CheckBase();
      }
    }
  }
  base_watch_.Close();
}

void StepScheduler::AwaitWork() {
  if (decode_line_.length() >= 2 * options_.max_batch) {
    decode_line_.AwaitShorterThan(2 * options_.max_batch);
  } else if (base_watch_.IsDue() || (!queue_->AwaitReady(kIdleAfter) && !queue_->stopped())) {
    CheckBase();
  }
}

void StepScheduler::CheckBase() { NoticeDeviceFailure(base_watch_.CheckNext()); }

// --- who runs

void StepScheduler::FillRows() {
  while (Rows().size() < row_limit_ && decode_line_.length() < 2 * options_.max_batch) {
    const std::vector<Candidate> candidates = Candidates();
    const bool alone = Rows().empty();
    step_fits_.clear();
    std::vector<RowCandidate> views;
    for (const auto& [run, task] : candidates) {
      const auto kept_out_by = alone ? std::nullopt : KeptOutBy(*task);
      if (kept_out_by.has_value() && run == nullptr) {
        TellRegroup(*task, *kept_out_by);
      }
      views.push_back({task->job().priority, run == nullptr ? 0 : static_cast<uint32_t>(run->rows.size()),
                       !kept_out_by.has_value(), absl::Seconds(task->seconds_since_admitted())});
    }
    const std::optional<size_t> chosen = ChooseRow(views, options_.longest_overtaking);
    if (!chosen.has_value()) {
      return;
    }
    const auto& [run, task] = candidates[*chosen];
    if (run != nullptr) {
      ChooseMode(task.get());
      StartRow(*run);
    } else if (const RunPtr started = Start(task); started != nullptr) {
      StartRow(*started);
    }
    DropEnded();
  }
  if (Rows().size() >= row_limit_) {
    for (const auto& request : queue_->Ready()) {
      TellRegroup(static_cast<ImageTask&>(*request), RegroupReason::kFull);
    }
  }
}

void StepScheduler::TellRegroup(ImageTask& task, RegroupReason reason) {
  const uint8_t bit = static_cast<uint8_t>(1u << static_cast<int>(reason));
  if ((task.regroups_told & bit) == 0) {
    task.regroups_told |= bit;
    metrics_->CountRegroup(reason);
  }
}

std::vector<StepScheduler::Candidate> StepScheduler::Candidates() const {
  std::vector<Candidate> candidates;
  for (const RunPtr& run : runs_) {
    if (run->has_images_to_start()) {
      candidates.push_back({run, run->task});
    }
  }
  for (const auto& request : queue_->Ready()) {
    candidates.push_back({nullptr, std::static_pointer_cast<ImageTask>(request)});
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return ComesBefore(*a.task, *b.task); });
  return candidates;
}

std::optional<RegroupReason> StepScheduler::KeptOutBy(const ImageTask& task) {
  bool same_set = false;
  MemoryWork step = StepWork(task.job().denoise);
  for (const RunPtr& run : runs_) {
    if (!run->rows.empty() && !run->job().denoise.same_size(task.job().denoise)) {
      return RegroupReason::kSize;
    }
    step.rows += StepWork(run->job().denoise).rows * static_cast<uint32_t>(run->rows.size());
    same_set = same_set || (!run->rows.empty() && run->task->fingerprint() == task.fingerprint());
  }
  const bool fits = same_set || (options_.apply != ApplyPolicy::kMerged && task.CheckSet([this](const AdapterSet& set) {
                      return std::all_of(runs_.begin(), runs_.end(), [&](const RunPtr& run) {
                        return run->rows.empty() || pipeline_->CanShareStep(run->task->adapter_set(), set);
                      });
                    }));
  if (!fits) {
    return RegroupReason::kAdapters;
  }
  const auto [step_fits, first] = step_fits_.try_emplace(step.rows);
  if (first) {
    step_fits->second = memory_.FitsNow(step);
  }
  return step_fits->second ? std::nullopt : std::optional(RegroupReason::kMemory);
}

StepScheduler::RunPtr StepScheduler::Start(const std::shared_ptr<ImageTask>& task) {
  if (!queue_->Take(task)) {
    return nullptr;  // it was cancelled meanwhile
  }
  const double queue_seconds = task->seconds_since_admitted();
  metrics_->ObserveQueueWait(queue_seconds);
  metrics_->ObserveStage(StageLabel::kQueue, queue_seconds);
  task->summary.queue_seconds = queue_seconds;
  ChooseMode(task.get());
  auto run = std::make_shared<ImageRun>(task);
  runs_.push_back(run);
  run->status = CatchExceptions([&] { return Prepare(*run); });
  NoticeDeviceFailure(run->status);
  return run;
}

absl::Status StepScheduler::Prepare(ImageRun& run) {
  const ImageJob& job = run.job();
  DescribeModel(pipeline_->info(), *run.task);
  ABSL_RETURN_IF_ERROR(run.task->Wanted());
  ABSL_RETURN_IF_ERROR(memory_.CheckAlone(job));
  ABSL_RETURN_IF_ERROR(ApplyAdapters(run));
  ABSL_RETURN_IF_ERROR(run.task->Wanted());
  const Stopwatch stopwatch;
  ABSL_ASSIGN_OR_RETURN(run.conditioning, memory_.Run(TextWork(job.prompts), [&] {
    return pipeline_->Encode(run.task->prompts(), job.denoise.cfg(), run.task->adapter_set(), mode_);
  }));
  if (const std::unique_ptr<const InitPicture> picture = run.task->TakePicture(); picture != nullptr) {
    ABSL_ASSIGN_OR_RETURN(run.init,
                          memory_.Run(InitWork(job.denoise), [&] { return pipeline_->EncodeInit(*picture); }));
  }
  run.task->summary.encode_seconds = stopwatch.Seconds();
  metrics_->ObserveStage(StageLabel::kEncode, run.task->summary.encode_seconds);
  return absl::OkStatus();
}

absl::Status StepScheduler::ApplyAdapters(ImageRun& run) {
  ImageTask& task = *run.task;
  SwapCost& cost = task.summary.swap;
  const AdapterTier coldest = DescribeAdapters(task);
  const std::vector<std::string> running = RunningSets();
  const bool in_effect = last_applied_ == task.fingerprint() ||
                         std::find(running.begin(), running.end(), task.fingerprint()) != running.end();
  const Stopwatch stopwatch;
  const absl::StatusOr<SwapReport> swap = pipeline_->Apply(task.adapter_set(), mode_);
  last_applied_ = swap.ok() ? std::optional<std::string>(task.fingerprint()) : std::nullopt;
  task.summary.adapter_seconds = task.load_seconds() + stopwatch.Seconds();
  metrics_->ObserveStage(StageLabel::kAdapter, task.summary.adapter_seconds);
  if (!swap.ok()) {
    metrics_->CountSwap(false);
    return swap.status();
  }
  cost.changed = !in_effect;
  cost.merged = mode_ == ApplyMode::kMerged;
  cost.apply_seconds = swap->apply_seconds;
  cost.restore_seconds = swap->restore_seconds;
  cost.total_seconds = task.summary.adapter_seconds;
  if (cost.changed) {
    metrics_->CountSwap(true);
    ObserveSwap(cost, coldest, *swap, *metrics_);
  }
  return absl::OkStatus();
}

void StepScheduler::StartRow(ImageRun& run) {
  if (!run.status.ok()) {
    return;
  }
  const uint32_t image = run.next_image++;
  absl::StatusOr<std::unique_ptr<Row>> row = pipeline_->StartRow(run.job().denoise, run.job().seed + image,
                                                                 run.conditioning, run.task->adapter_set(), run.init);
  run.status = row.status();
  if (row.ok()) {
    run.rows.push_back({image, *std::move(row), 0.0});
  }
}

void StepScheduler::DropEnded() {
  for (const RunPtr& run : std::vector<RunPtr>(runs_)) {
    if (run->status.ok()) {
      run->status = run->task->Wanted();
    }
    if (run->status.ok() && (run->has_images_to_start() || !run->rows.empty())) {
      continue;
    }
    if (run->status.ok()) {
      metrics_->ObserveStage(StageLabel::kDenoise, run->task->summary.denoise_seconds);
    }
    run->rows.clear();
    runs_.erase(std::find(runs_.begin(), runs_.end(), run));
    queue_->StepsDone(run->task);
    decode_line_.Finish(run);
  }
  if (Rows().empty()) {
    row_limit_ = options_.max_batch;
  }
}

// --- how adapters take effect

std::vector<std::string> StepScheduler::RunningSets() const {
  std::vector<std::string> sets;
  for (const RunPtr& run : runs_) {
    if (!run->rows.empty() && std::find(sets.begin(), sets.end(), run->task->fingerprint()) == sets.end()) {
      sets.push_back(run->task->fingerprint());
    }
  }
  return sets;
}

void StepScheduler::ChooseMode(const ImageTask* joining) {
  if (options_.apply != ApplyPolicy::kAuto) {
    return;
  }
  std::vector<std::string> sets = RunningSets();
  const bool first = sets.empty();
  if (joining != nullptr && std::find(sets.begin(), sets.end(), joining->fingerprint()) == sets.end()) {
    sets.push_back(joining->fingerprint());
  }
  steps_of_one_set_ = sets.size() > 1 ? 0 : steps_of_one_set_;
  // Requests that will join in a moment count too: merging for one step would be wasted.
  bool mixed = sets.size() > 1;
  if (joining != nullptr && first && options_.max_batch > 1) {
    for (const auto& request : queue_->Ready()) {
      const auto& task = static_cast<const ImageTask&>(*request);
      mixed =
          mixed ||
          (task.fingerprint() != joining->fingerprint() && task.job().denoise.same_size(joining->job().denoise) &&
           task.CheckSet([&](const AdapterSet& set) { return pipeline_->CanShareStep(joining->adapter_set(), set); }));
    }
  }
  if (mixed) {
    SwitchTo(ApplyMode::kSide);
  } else if (first || steps_of_one_set_ >= kStepsBeforeMerging) {
    SwitchTo(ApplyMode::kMerged);
  }
}

void StepScheduler::SwitchTo(ApplyMode mode) {
  if (mode == mode_) {
    return;
  }
  mode_ = mode;
  steps_of_one_set_ = 0;
  for (const RunPtr& run : runs_) {
    if (!run->rows.empty()) {
      // Here, so that it does not count as a step's time; if it fails the step itself will.
      NoticeDeviceFailure(pipeline_->Apply(run->task->adapter_set(), mode_).status());
      return;
    }
  }
}

// --- steps

std::vector<StepScheduler::RowRef> StepScheduler::Rows() const {
  std::vector<RowRef> rows;
  for (const RunPtr& run : runs_) {
    for (RunningRow& row : run->rows) {
      rows.push_back({run.get(), &row});
    }
  }
  return rows;
}

void StepScheduler::StepAll() {
  ChooseMode(nullptr);
  if (mode_ == ApplyMode::kSide) {
    steps_of_one_set_ = RunningSets().size() == 1 ? steps_of_one_set_ + 1 : 0;
  }
  const std::vector<RowRef> all = Rows();
  if (last_applied_.has_value()) {
    last_applied_ = all.back().run->task->fingerprint();  // what Step leaves in effect
  }
  absl::Span<const RowRef> left(all);
  while (!left.empty()) {
    const size_t count = std::min<size_t>(left.size(), row_limit_);
    StepTogether(left.first(count));
    left.remove_prefix(count);
  }
}

void StepScheduler::StepTogether(absl::Span<const RowRef> rows) {
  BatchPlan plan;
  plan.mode = mode_;
  std::vector<uint32_t> steps_before, evaluations_before;
  MemoryWork work = StepWork(rows.front().run->job().denoise);
  work.rows = 0;
  for (const auto& [run, row] : rows) {
    work.rows += StepWork(run->job().denoise).rows;
    plan.rows.push_back(row->row.get());
    steps_before.push_back(row->row->steps_done());
    evaluations_before.push_back(row->row->evaluations());
  }
  const Stopwatch stopwatch;
  const absl::Status status = memory_.Run(work, [&] { return pipeline_->Step(plan); });
  if (status.ok()) {
    Account(rows, steps_before, stopwatch.Seconds());
    return;
  }
  NoticeDeviceFailure(status);
  if (rows.size() == 1 || IsDeviceFailure(status)) {
    for (const auto& [run, row] : rows) {
      run->status = run->status.ok() ? status : run->status;
    }
    return;
  }
  LogWarning("a step of ", rows.size(), " rows failed, so each goes on alone: ", status.message());
  if (absl::IsResourceExhausted(status)) {
    row_limit_ = static_cast<uint32_t>((rows.size() + 1) / 2);
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].run->status.ok() && rows[i].row->row->evaluations() == evaluations_before[i]) {
      StepTogether(rows.subspan(i, 1));
    }
  }
}

void StepScheduler::Account(absl::Span<const RowRef> rows, absl::Span<const uint32_t> steps_before, double seconds) {
  const DenoiseOptions& first = rows.front().run->job().denoise;
  StepShape shape{first.width, first.height, static_cast<uint32_t>(rows.size())};
  const ImageRun* counted = nullptr;  // rows of one run stand together
  absl::flat_hash_set<absl::string_view> side_sets;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& [run, running] = rows[i];
    const Row& row = *running->row;
    shape.guided_rows += run->job().denoise.cfg_at(steps_before[i], row.total_steps()) ? 1 : 0;
    if (mode_ == ApplyMode::kSide && !run->task->adapter_set().adapters.empty()) {
      side_sets.insert(run->task->fingerprint());
    }
    if (run != std::exchange(counted, run)) {
      run->task->summary.denoise_seconds += seconds;
    }
    running->step_seconds += seconds;
    // A sampler of two evaluations a step (Heun) has done a step only after the second.
    if (row.steps_done() != steps_before[i]) {
      TellProgress(*run, *running);
    }
  }
  shape.side_sets = static_cast<uint32_t>(side_sets.size());
  metrics_->ObserveStep(shape, seconds);
}

void StepScheduler::TellProgress(ImageRun& run, RunningRow& running) {
  ImageProgress progress{running.image, running.row->steps_done(), running.row->total_steps(), running.step_seconds,
                         ""};
  running.step_seconds = 0.0;
  if (run.job().denoise.preview_at(progress.step)) {
    // An eighth of the image's width and height, so the JPEG takes some hundred microseconds.
    absl::StatusOr<std::string> preview = CatchExceptions([&]() -> absl::StatusOr<std::string> {
      ABSL_ASSIGN_OR_RETURN(const RgbImage image, pipeline_->Preview(*running.row));
      return EncodeImage(image, ImageFormat::kJpeg, /*quality=*/80, "");
    });
    if (!preview.ok()) {
      NoticeDeviceFailure(preview.status());
      run.status = preview.status();
      return;
    }
    progress.preview = *std::move(preview);
  }
  run.task->Tell([&progress](ImageListener& listener) { listener.OnProgress(progress); });
}

void StepScheduler::HandOnFinishedRows() {
  for (const RunPtr& run : runs_) {
    if (!run->status.ok()) {
      continue;
    }
    for (RunningRow& row : run->rows) {
      if (row.row->done()) {
        decode_line_.Decode(run, std::move(row));
      }
    }
    run->rows.erase(
        std::remove_if(run->rows.begin(), run->rows.end(), [](const auto& row) { return row.row == nullptr; }),
        run->rows.end());
  }
}

void StepScheduler::End(const std::shared_ptr<ImageTask>& task, const absl::Status& status, double run_seconds) {
  if (!task->ClaimEnd()) {
    return;
  }
  task->ReleaseFiles();
  if (options_.on_release) {
    options_.on_release();
  }
  task->summary.total_seconds = task->seconds_since_admitted();
  queue_->Forget(task, run_seconds);
  task->TellDone(status);
}

void StepScheduler::NoticeDeviceFailure(const absl::Status& status) {
  if (status.ok() || !IsDeviceFailure(status)) {
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
