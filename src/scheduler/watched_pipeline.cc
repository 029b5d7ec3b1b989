#include "src/scheduler/watched_pipeline.h"

#include <utility>

namespace hotlora {
namespace {

// A network runs a long prompt in pieces.
constexpr size_t kPromptBytesPerClass = 1024;

StepShape SizeOf(const DenoiseOptions& options) { return {options.width, options.height}; }

StepShape ShapeOf(const BatchPlan& plan) {
  StepShape shape = SizeOf(plan.rows.front()->denoise());
  for (const Row* row : plan.rows) {
    ++shape.rows;
    shape.controls += row->controls_at(row->evaluations());
    shape.image_prompts += row->image_prompts_seen();
    shape.guided_rows += row->denoise().cfg_at(row->steps_done(), row->total_steps()) ? 1 : 0;
  }
  shape.side_sets = plan.mode == ApplyMode::kSide ? 1 : 0;
  return shape;
}

// The shape of work on `adapters` and texts; sizes have no part in it.
StepShape ShapeOf(const AdapterSet& adapters, size_t text_classes, bool negative, ApplyMode mode) {
  StepShape shape;
  shape.width = static_cast<uint32_t>(text_classes);
  shape.rows = static_cast<uint32_t>(adapters.adapters.size());
  shape.guided_rows = negative ? 1 : 0;
  shape.side_sets = mode == ApplyMode::kSide ? 1 : 0;
  return shape;
}

// A failure may come at once, so it tells nothing of how long such work takes.
template <typename Result>
Result Counted(WorkWatch::Mark& mark, Result result) {
  if (!result.ok()) {
    mark.DoNotCount();
  }
  return result;
}

}  // namespace

WatchedPipeline::WatchedPipeline(std::unique_ptr<Pipeline> pipeline, WorkWatch* watch,
                                 std::function<void()> in_each_step)
    : pipeline_(std::move(pipeline)), watch_(watch), in_each_step_(std::move(in_each_step)) {}

absl::StatusOr<SwapReport> WatchedPipeline::Apply(const AdapterSet& set, ApplyMode mode) {
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kApply, ShapeOf(set, 0, false, mode)});
  absl::StatusOr<SwapReport> report = pipeline_->Apply(set, mode);
  if (!report.ok() || !report->changed) {
    mark.DoNotCount();
  }
  return report;
}

absl::StatusOr<std::shared_ptr<const Conditioning>> WatchedPipeline::Encode(const Prompts& prompts, bool negative,
                                                                            const AdapterSet& set, ApplyMode mode) {
  const size_t classes = prompts.prompt.size() / kPromptBytesPerClass;
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kEncode, ShapeOf(set, classes, negative, mode)});
  return Counted(mark, pipeline_->Encode(prompts, negative, set, mode));
}

absl::StatusOr<std::shared_ptr<const InitLatents>> WatchedPipeline::EncodeInit(const InitPicture& picture,
                                                                               VaeForm form) {
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kEncode, {picture.image.width, picture.image.height}});
  return Counted(mark, pipeline_->EncodeInit(picture, form));
}

absl::StatusOr<std::shared_ptr<const Controls>> WatchedPipeline::EmbedControls(
    absl::Span<const ControlInput> controls) {
  StepShape shape{controls.front().picture.width, controls.front().picture.height};
  shape.rows = static_cast<uint32_t>(controls.size());
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kEncode, shape});
  return Counted(mark, pipeline_->EmbedControls(controls));
}

absl::StatusOr<std::shared_ptr<const ImagePrompts>> WatchedPipeline::EncodeImagePrompts(
    const ImagePromptInputs& inputs) {
  StepShape shape;
  shape.image_prompts = static_cast<uint32_t>(inputs.prompts.size());
  for (const ImagePromptInput& prompt : inputs.prompts) {
    shape.rows += static_cast<uint32_t>(prompt.pictures.size());
  }
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kEncode, shape});
  return Counted(mark, pipeline_->EncodeImagePrompts(inputs));
}

absl::StatusOr<std::unique_ptr<Row>> WatchedPipeline::StartRow(const DenoiseOptions& options, uint64_t seed,
                                                               std::shared_ptr<const Conditioning> conditioning,
                                                               AdapterSchedule adapters,
                                                               std::shared_ptr<const InitLatents> init,
                                                               std::shared_ptr<const Controls> controls,
                                                               std::shared_ptr<const ImagePrompts> image_prompts) {
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kStep, SizeOf(options)});
  return Counted(mark, pipeline_->StartRow(options, seed, std::move(conditioning), std::move(adapters), std::move(init),
                                           std::move(controls), std::move(image_prompts)));
}

absl::Status WatchedPipeline::Step(const BatchPlan& plan) {
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kStep, ShapeOf(plan)});
  if (in_each_step_) {
    in_each_step_();
  }
  const absl::Status status = pipeline_->Step(plan);
  if (!status.ok()) {
    mark.DoNotCount();
  }
  return status;
}

absl::StatusOr<RgbImage> WatchedPipeline::Preview(const Row& row) {
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kStep, SizeOf(row.denoise())});
  return Counted(mark, pipeline_->Preview(row));
}

absl::StatusOr<RgbImage> WatchedPipeline::Decode(const Row& row, VaeForm form) {
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kDecode, SizeOf(row.denoise())});
  return Counted(mark, pipeline_->Decode(row, form));
}

absl::StatusOr<BaseReport> WatchedPipeline::VerifyNextModule() {
  WorkWatch::Mark mark = watch_->Begin({WorkKind::kCheck, {}});
  return Counted(mark, pipeline_->VerifyNextModule());
}

}  // namespace hotlora
