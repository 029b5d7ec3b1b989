#include "src/scheduler/run_start.h"

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
  ABSL_RETURN_IF_ERROR(swaps_->AtStart(task, mode, running));
  ABSL_RETURN_IF_ERROR(task.Wanted());
  return Encode(run, mode);
}

void RunStart::StartRow(ImageRun& run) {
  if (!run.status.ok()) {
    return;
  }
  const uint32_t image = run.next_image++;
  absl::StatusOr<std::unique_ptr<Row>> row = pipeline_->StartRow(
      run.job().denoise, run.job().seed + image, run.conditioning, run.task->adapter_schedule(), run.init);
  run.status = row.status();
  if (row.ok()) {
    RunningRow& running = run.rows.emplace_back();
    running.image = image;
    running.row = *std::move(row);
  }
}

absl::Status RunStart::Encode(ImageRun& run, ApplyMode mode) {
  ImageTask& task = *run.task;
  const ImageJob& job = task.job();
  const Stopwatch stopwatch;
  ABSL_ASSIGN_OR_RETURN(run.conditioning, memory_->Call(TextWork(job.prompts), [&] {
    return pipeline_->Encode(task.prompts(), job.denoise.cfg(), task.adapter_schedule().at(0).set, mode);
  }));
  metrics_->CountConditioning(run.conditioning->was_kept());
  run.init = task.TakeInit();
  task.summary.encode_seconds += stopwatch.Seconds();
  metrics_->ObservePhase(RequestPhase::kEncode, task.summary.encode_seconds);
  return absl::OkStatus();
}

}  // namespace hotlora
