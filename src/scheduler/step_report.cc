#include "src/scheduler/step_report.h"

#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/base/exception_status.h"
#include "src/base/status_macros.h"
#include "src/image/image_encoder.h"

namespace hotlora {
namespace {

StepShape ShapeOf(absl::Span<const RowRef> rows, ApplyMode mode) {
  const DenoiseOptions& first = rows.front().row->row->denoise();
  StepShape shape;
  shape.width = first.width;
  shape.height = first.height;
  shape.rows = static_cast<uint32_t>(rows.size());
  absl::flat_hash_set<absl::string_view> side_sets;
  for (const RowRef& ref : rows) {
    const RowWork work = WorkOf(ref, mode);
    shape.guided_rows += work.network_rows - 1;
    shape.controls += ref.row->row->controls_at(ref.evaluations_before);
    shape.image_prompts += ref.row->row->image_prompts_seen();
    if (work.side) {
      side_sets.insert(ref.row->row->adapters().at(ref.evaluations_before).fingerprint);
    }
  }
  shape.side_sets = static_cast<uint32_t>(side_sets.size());
  return shape;
}

}  // namespace

RowWork WorkOf(const RowRef& ref, ApplyMode mode) {
  const Row& row = *ref.row->row;
  const bool guided = row.denoise().cfg_at(ref.steps_before, row.total_steps());
  const bool adapted = !row.adapters().at(ref.evaluations_before).set.adapters.empty();
  return {guided ? 2U : 1U, mode == ApplyMode::kSide && adapted};
}

void StepReport::Report(absl::Span<const RowRef> rows, ApplyMode mode, double seconds) {
  const ImageRun* counted = nullptr;  // the rows of one run stand together, and the time counts once for it
  for (const RowRef& ref : rows) {
    if (ref.run != counted) {
      ref.run->task->summary.denoise_seconds += seconds;
      counted = ref.run;
    }
    ref.row->step_seconds += seconds;
    // A sampler of two evaluations a step (Heun, DPM2) has done a step only after the second.
    if (ref.row->row->steps_done() != ref.steps_before) {
      TellProgress(*ref.run, *ref.row);
    }
  }
  const StepShape shape = ShapeOf(rows, mode);
  if (!shape.conditioned()) {  // the costs are those of adapters
    costs_->AddStep({shape.width, shape.height, shape.rows + shape.guided_rows, shape.side_sets > 0}, seconds);
  }
  metrics_->ObserveStep(shape, seconds);
}

void StepReport::TellProgress(ImageRun& run, RunningRow& running) {
  ImageProgress progress;
  progress.image_index = running.image;
  progress.step = running.row->steps_done();
  progress.total_steps = running.row->total_steps();
  if (const ImageJob& job = run.job(); job.hires.has_value()) {
    progress.total_steps = job.denoise.steps_run() + job.hires->steps_run();
    progress.step += running.pass == Pass::kSecond ? job.denoise.steps_run() : 0;
  }
  progress.step_seconds = std::exchange(running.step_seconds, 0.0);
  if (running.row->denoise().preview_at(running.row->steps_done())) {
    // An eighth of the image's width and height, so the JPEG takes some hundred microseconds.
    absl::StatusOr<std::string> preview = CatchExceptions([&]() -> absl::StatusOr<std::string> {
      ABSL_ASSIGN_OR_RETURN(const RgbImage image, pipeline_->Preview(*running.row));
      return EncodeImage(image, ImageFormat::kJpeg, /*quality=*/80, "");
    });
    if (!preview.ok()) {
      run.status = preview.status();
      return;
    }
    progress.preview = *std::move(preview);
  }
  run.task->Tell([&progress](ImageListener& listener) { listener.OnProgress(progress); });
}

}  // namespace hotlora
