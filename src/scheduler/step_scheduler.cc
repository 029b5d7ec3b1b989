#include "src/scheduler/step_scheduler.h"

#include <algorithm>
#include <utility>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/exception_status.h"
#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/named_thread.h"
#include "src/base/thread_team.h"
#include "src/scheduler/row_fit.h"
#include "src/scheduler/warm_up.h"

namespace hotlora {
namespace {

// A step thread that has had nothing to do for so long checks the base weights, a module at a time.
constexpr absl::Duration kIdleAfter = absl::Milliseconds(100);

bool IsDeviceFailure(const absl::Status& status) {
  return GetErrorDetails(status).reason == error_reason::kDeviceFailed;
}

// Finished rows keep their latents until they are decoded. While so many wait, no row starts: that bounds their memory.
uint32_t MostDecodes(const BatchOptions& options) { return 2 * options.max_batch; }

}  // namespace

struct StepScheduler::Candidate {
  RunPtr run;  // nullptr: it is only ready
  std::shared_ptr<ImageTask> task;
  Pass pass = Pass::kFirst;
};

StepScheduler::StepScheduler(const BatchOptions& options, Events events, RequestQueue* queue, Pipeline* pipeline,
                             Metrics* metrics)
    : options_(options),
      events_(std::move(events)),
      queue_(queue),
      pipeline_(pipeline),
      metrics_(metrics),
      mode_chooser_(options_.apply),
      row_limit_(options_.max_batch),
      memory_(pipeline, metrics),
      swaps_(pipeline, &costs_, metrics),
      run_start_(pipeline, &memory_, &swaps_, metrics),
      step_report_(pipeline, &costs_, metrics),
      base_watch_(pipeline, metrics, events_.on_base_state),
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
  const KeptTeam team;
  warm_up_status_ = WarmUp(*pipeline_, memory_, *metrics_, decode_line_, costs_, options_.max_batch);
  warmed_up_.Notify();
  while (!queue_->stopped()) {
    metrics_->BeatScheduler();
    TakeRefined();
    DropEnded();
    FillRows();
    if (RowCount(runs_) == 0) {
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
  if (DecodesPileUp()) {
    decode_line_.AwaitShorterThan(MostDecodes(options_));
    return;
  }
  // Decodes may have piled up when rows were filled, and do no more.
  const bool has_work = std::any_of(runs_.begin(), runs_.end(), [](const RunPtr& run) { return run->wants_row(); });
  if (!has_work && (base_watch_.IsDue() || (!queue_->AwaitReady(kIdleAfter) && !queue_->stopped()))) {
    CheckBase();
  }
}

bool StepScheduler::DecodesPileUp() const { return decode_line_.length() >= MostDecodes(options_); }

void StepScheduler::CheckBase() { NoticeDeviceFailure(base_watch_.CheckNext()); }

// --- who runs

// A row that starts changes what fits beside it. So rows start one at a time, and the candidates are judged again for
// each.
void StepScheduler::FillRows() {
  while (RowCount(runs_) < row_limit_ && !DecodesPileUp()) {
    const std::vector<Candidate> candidates = Candidates();
    RowFit fit(runs_, options_.apply, pipeline_, &memory_);
    std::vector<RowCandidate> views;
    for (const auto& [run, task, pass] : candidates) {
      const std::optional<RegroupReason> kept_out_by = fit.KeptOutBy(*task, pass);
      if (kept_out_by.has_value() && run == nullptr) {
        CountRegroup(*task, *kept_out_by);
      }
      RowCandidate view;
      view.priority = task->job().priority;
      view.rows = run == nullptr ? 0 : static_cast<uint32_t>(run->rows.size());
      view.fits = !kept_out_by.has_value();
      view.waited = run == nullptr ? absl::Seconds(task->seconds_since_admitted()) : run->Waited(pass);
      views.push_back(view);
    }
    const std::optional<size_t> chosen = ChooseRow(views, options_.longest_overtaking);
    if (!chosen.has_value()) {
      return;
    }
    const auto& [run, task, pass] = candidates[*chosen];
    if (run != nullptr) {
      ChooseModeFor(*task, pass);
      if (pass == Pass::kSecond) {
        run_start_.StartSecondPass(*run);
      } else {
        run_start_.StartRow(*run);
      }
    } else if (const RunPtr started = Start(task); started != nullptr) {
      run_start_.StartRow(*started);
    }
    DropEnded();  // a request that could not start must not count as one that runs
  }
  if (RowCount(runs_) >= row_limit_) {
    for (const auto& task : queue_->Ready()) {
      CountRegroup(*task, RegroupReason::kFull);
    }
  }
}

void StepScheduler::CountRegroup(ImageTask& task, RegroupReason reason) {
  const uint8_t bit = static_cast<uint8_t>(1u << static_cast<int>(reason));
  if ((task.regroups_counted & bit) == 0) {
    task.regroups_counted |= bit;
    metrics_->CountRegroup(reason);
  }
}

std::vector<StepScheduler::Candidate> StepScheduler::Candidates() const {
  std::vector<Candidate> candidates;
  for (const RunPtr& run : runs_) {
    if (!run->to_refine.empty()) {
      candidates.push_back({run, run->task, Pass::kSecond});
    }
    if (run->has_images_to_start()) {
      candidates.push_back({run, run->task});
    }
  }
  for (const auto& task : queue_->Ready()) {
    candidates.push_back({nullptr, task});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return ComesBefore(*a.task, *b.task); });
  return candidates;
}

StepScheduler::RunPtr StepScheduler::Start(const std::shared_ptr<ImageTask>& task) {
  if (!queue_->Take(task)) {
    return nullptr;  // it was cancelled meanwhile
  }
  const double queue_seconds = task->seconds_since_admitted();
  metrics_->ObserveQueueWait(queue_seconds);
  metrics_->ObservePhase(RequestPhase::kQueue, queue_seconds);
  task->summary.queue_seconds = queue_seconds;
  ChooseModeFor(*task);
  auto run = std::make_shared<ImageRun>(task);
  runs_.push_back(run);
  run->status = CatchExceptions([&] { return run_start_.Prepare(*run, mode_chooser_.mode(), SetsWithRows(runs_)); });
  return run;
}

// What the decode line has made of first passes waits for rows of the second.
void StepScheduler::TakeRefined() {
  for (const RunPtr& run : runs_) {
    if (run->refining == 0) {
      continue;
    }
    for (RefinedImage& refined : run->refined.TakeAll()) {
      --run->refining;
      run->status.Update(refined.init.status());
      run->to_refine.push_back(std::move(refined));
    }
  }
}

// Takes out the runs that have failed, or are not wanted any more, or have handed on all rows of their last pass. The
// decode line ends each after its last decode.
void StepScheduler::DropEnded() {
  for (const RunPtr& run : std::vector<RunPtr>(runs_)) {  // a copy, since runs_ changes
    if (run->status.ok()) {
      run->status = run->task->Wanted();
    }
    if (run->status.ok() && (run->has_images_to_start() || !run->rows.empty() || run->has_second_passes())) {
      continue;
    }
    NoticeDeviceFailure(run->status);  // before its caller learns of it
    if (run->status.ok()) {
      metrics_->ObservePhase(RequestPhase::kDenoise, run->task->summary.denoise_seconds);
    }
    run->rows.clear();
    runs_.erase(std::find(runs_.begin(), runs_.end(), run));
    queue_->StepsDone(run->task);
    decode_line_.Finish(run);
  }
  if (RowCount(runs_) == 0) {
    row_limit_ = options_.max_batch;  // the rows that ran out of memory have ended, so it is tried again
  }
}

// --- how adapters take effect

void StepScheduler::ChooseModeFor(const ImageTask& joining, Pass pass) {
  const std::vector<std::string> running = SetsWithRows(runs_);
  if (mode_chooser_.BeforeRow(running, joining.adapter_schedule(pass).at(0).fingerprint,
                              running.empty() && AnotherSetIsReady(joining, pass))) {
    TakeUpMode();
  }
}

// Whether a request that is ready would join the first row of `joining`, with another set. Only --apply auto asks.
bool StepScheduler::AnotherSetIsReady(const ImageTask& joining, Pass pass) const {
  if (options_.max_batch == 1 || options_.apply != ApplyPolicy::kAuto) {
    return false;
  }
  const std::vector<std::shared_ptr<ImageTask>> ready = queue_->Ready();
  return std::any_of(ready.begin(), ready.end(), [&](const std::shared_ptr<ImageTask>& task) {
    return task->fingerprint() != joining.fingerprint(pass) &&
           task->job().denoise.same_size(joining.job().options(pass)) &&
           task->CheckAdapters([&](const AdapterSchedule& adapters) {
             return CanShareSteps(*pipeline_, options_.apply, joining.adapter_schedule(pass), 0, adapters, 0);
           });
  });
}

// Here, so that a change of mode does not count as a step's time; if it fails, the step itself will.
void StepScheduler::TakeUpMode() {
  for (const RunPtr& run : runs_) {
    if (!run->rows.empty()) {
      const absl::StatusOr<SwapReport> applied =
          pipeline_->Apply(run->rows.front().row->next_adapters().set, mode_chooser_.mode());
      NoticeDeviceFailure(applied.status());
      if (applied.ok()) {
        costs_.AddApply(*applied, mode_chooser_.mode());
      }
      return;
    }
  }
}

// --- steps

void StepScheduler::StepAll() {
  const std::vector<RowRef> all = RowsOf(runs_);
  const DenoiseOptions& size = all.front().row->row->denoise();
  const auto works = [&all, this] {
    std::vector<RowWork> of_rows;
    for (const RowRef& ref : all) {
      of_rows.push_back(WorkOf(ref, mode_chooser_.mode()));
    }
    return of_rows;
  };
  if (mode_chooser_.BeforeStep(SetsWithRows(runs_), costs_.StepsBeforeMerging(size.width, size.height, works()))) {
    TakeUpMode();
  }
  NoticeDeviceFailure(swaps_.BeforeStep(runs_, mode_chooser_.mode()));  // if it fails, the step itself will
  const size_t per_call = costs_.RowsPerCall(size.width, size.height, works());
  std::vector<std::string> sets;
  for (const RowRef& ref : all) {
    sets.push_back(ref.row->row->next_adapters().fingerprint);
  }
  swaps_.NoteStep(std::move(sets));
  absl::Span<const RowRef> left(all);
  while (!left.empty()) {  // more than once if turns are faster, or if a step ran out of memory: that lowers row_limit_
    const size_t count = std::min<size_t>({left.size(), per_call, row_limit_});
    StepTogether(left.first(count));
    left.remove_prefix(count);
  }
}

// If a step of several rows fails, each of them goes on alone, so that only the request at fault ends. A row that has
// had its evaluation before the failure must not have another: its sampler would skip a step.
void StepScheduler::StepTogether(absl::Span<const RowRef> rows) {
  BatchPlan plan;
  plan.mode = mode_chooser_.mode();
  MemoryWork work = StepWork(*rows.front().row->row);
  work.rows = work.control_rows = 0;
  for (const RowRef& ref : rows) {
    const MemoryWork of_row = StepWork(*ref.row->row);
    work.rows += of_row.rows;
    work.control_rows += of_row.control_rows;
    work.kept_bytes += ref.row->row->bytes_to_keep();
    plan.rows.push_back(ref.row->row.get());
  }
  const Stopwatch stopwatch;
  const absl::Status status = memory_.Call(work, [&] { return pipeline_->Step(plan); });
  if (status.ok()) {
    step_report_.Report(rows, plan.mode, stopwatch.Seconds());
    return;
  }
  NoticeDeviceFailure(status);  // a run that has failed before keeps its first error
  if (rows.size() == 1 || IsDeviceFailure(status)) {
    for (const RowRef& ref : rows) {
      ref.run->status.Update(status);
    }
    return;
  }
  LogWarning("a step of ", rows.size(), " rows failed, so each goes on alone: ", status.message());
  if (absl::IsResourceExhausted(status)) {
    row_limit_ = static_cast<uint32_t>((rows.size() + 1) / 2);
  }
  for (const RowRef& ref : rows) {
    if (ref.run->status.ok() && ref.row->row->evaluations() == ref.evaluations_before) {
      StepTogether(absl::MakeConstSpan(&ref, 1));
    }
  }
}

// Decode leaves a row empty, which is then erased.
void StepScheduler::HandOnFinishedRows() {
  for (const RunPtr& run : runs_) {
    if (!run->status.ok()) {
      continue;
    }
    for (RunningRow& row : run->rows) {
      if (!row.row->done()) {
        continue;
      }
      if (row.pass == Pass::kFirst && run->job().hires.has_value()) {
        ++run->refining;
        decode_line_.Refine(run, std::move(row), [this] { queue_->Wake(); });
      } else {
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
  // The caller learns of the end last: by then it may send the next request under the same id, and finds the files and
  // the queue's capacity free.
  task->ReleaseFiles();
  if (events_.on_release) {
    events_.on_release();
  }
  task->summary.total_seconds = task->seconds_since_admitted();
  queue_->Forget(task, run_seconds);
  task->TellEnd(status);
}

void StepScheduler::NoticeDeviceFailure(const absl::Status& status) {
  if (status.ok() || !IsDeviceFailure(status)) {
    return;
  }
  {
    MutexLock lock(&mu_);
    if (std::exchange(device_failed_, true)) {
      return;
    }
  }
  LogError("the device is lost: ", status.message());
  if (events_.on_device_failure) {
    events_.on_device_failure();
  }
}

}  // namespace hotlora
