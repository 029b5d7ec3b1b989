#include "src/scheduler/run_start.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/scheduler/request_summary.h"

namespace hotlora {

absl::Status RunStart::Prepare(ImageRun& run, ApplyMode mode, absl::Span<const std::string> running) {
  ImageTask& task = *run.task;
  DescribeModel(pipeline_->info(), task);
  ABSL_RETURN_IF_ERROR(task.Wanted());
  ABSL_RETURN_IF_ERROR(memory_->CheckAlone(task.job()));
  ABSL_RETURN_IF_ERROR(ApplyAdapters(task, mode, running));
  ABSL_RETURN_IF_ERROR(task.Wanted());
  return Encode(run, mode);
}

void RunStart::StartRow(ImageRun& run) {
  if (!run.status.ok()) {
    return;
  }
  const uint32_t image = run.next_image++;
  absl::StatusOr<std::unique_ptr<Row>> row = pipeline_->StartRow(run.job().denoise, run.job().seed + image,
                                                                 run.conditioning, run.task->adapter_set(), run.init);
  run.status = row.status();
  if (row.ok()) {
    RunningRow& running = run.rows.emplace_back();
    running.image = image;
    running.row = *std::move(row);
  }
}

void RunStart::NoteStep(const std::string& last_set) {
  if (in_effect_.has_value()) {
    in_effect_ = last_set;
  }
}

// A swap is counted if the set takes effect in place of others. In side mode every set that has rows is in effect.
absl::Status RunStart::ApplyAdapters(ImageTask& task, ApplyMode mode, absl::Span<const std::string> running) {
  const AdapterTier coldest = DescribeAdapters(task);
  const std::string& set = task.fingerprint();
  const bool was_in_effect = in_effect_ == set || std::find(running.begin(), running.end(), set) != running.end();
  const Stopwatch stopwatch;
  const absl::StatusOr<SwapReport> swap = pipeline_->Apply(task.adapter_set(), mode);
  task.summary.adapter_seconds = task.load_seconds() + stopwatch.Seconds();
  metrics_->ObservePhase(RequestPhase::kAdapter, task.summary.adapter_seconds);
  if (!swap.ok()) {
    in_effect_ = std::nullopt;
    metrics_->CountSwap(false);
    return swap.status();
  }
  in_effect_ = set;
  SwapCost& cost = task.summary.swap;
  cost.changed = !was_in_effect;
  cost.merged = mode == ApplyMode::kMerged;
  cost.apply_seconds = swap->apply_seconds;
  cost.restore_seconds = swap->restore_seconds;
  cost.total_seconds = task.summary.adapter_seconds;
  if (cost.changed) {
    metrics_->CountSwap(true);
    ObserveSwap(cost, coldest, *swap, *metrics_);
  }
  return absl::OkStatus();
}

absl::Status RunStart::Encode(ImageRun& run, ApplyMode mode) {
  ImageTask& task = *run.task;
  const ImageJob& job = task.job();
  const Stopwatch stopwatch;
  ABSL_ASSIGN_OR_RETURN(run.conditioning, memory_->Call(TextWork(job.prompts), [&] {
    return pipeline_->Encode(task.prompts(), job.denoise.cfg(), task.adapter_set(), mode);
  }));
  metrics_->CountConditioning(run.conditioning->was_kept());
  run.init = task.TakeInit();
  task.summary.encode_seconds += stopwatch.Seconds();
  metrics_->ObservePhase(RequestPhase::kEncode, task.summary.encode_seconds);
  return absl::OkStatus();
}

}  // namespace hotlora
