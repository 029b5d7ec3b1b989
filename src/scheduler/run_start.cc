#include "src/scheduler/run_start.h"

#include <memory>
#include <utility>
#include <vector>

#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/scheduler/request_summary.h"

namespace hotlora {
namespace {

// Whether an adapter that changes the text encoders is in force in one pass alone.
bool TextsDiffer(const ImageTask& task) {
  const auto fingerprint = [&task](Pass pass) { return task.adapter_schedule(pass).at(0).set.TextFingerprint(); };
  return task.job().hires.has_value() && fingerprint(Pass::kFirst) != fingerprint(Pass::kSecond);
}

}  // namespace

absl::Status RunStart::Prepare(ImageRun& run, ApplyMode mode, absl::Span<const std::string> running) {
  ImageTask& task = *run.task;
  DescribeModel(pipeline_->info(), task);
  DescribeControls(task);
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
  AddRow(run, run.next_image++, Pass::kFirst, run.init);
}

void RunStart::StartSecondPass(ImageRun& run) {
  if (!run.status.ok()) {
    return;
  }
  RefinedImage refined = std::move(run.to_refine.front());
  run.to_refine.erase(run.to_refine.begin());
  AddRow(run, refined.image, Pass::kSecond, *std::move(refined.init));
}

void RunStart::AddRow(ImageRun& run, uint32_t image, Pass pass, std::shared_ptr<const InitLatents> init) {
  absl::StatusOr<std::unique_ptr<Row>> row = pipeline_->StartRow(
      run.job().options(pass), run.job().seed + image, pass == Pass::kFirst ? run.conditioning : run.hires_conditioning,
      run.task->adapter_schedule(pass), std::move(init), pass == Pass::kFirst ? run.controls : run.hires_controls,
      run.image_prompts);
  run.status = row.status();
  if (row.ok()) {
    RunningRow& running = run.rows.emplace_back();
    running.image = image;
    running.pass = pass;
    running.row = *std::move(row);
  }
}

absl::StatusOr<std::shared_ptr<const Controls>> RunStart::EmbedControls(const ImageTask& task, Pass pass,
                                                                        std::vector<RgbImage> pictures) {
  if (task.controls().empty()) {
    return std::shared_ptr<const Controls>();
  }
  std::vector<ControlInput> inputs;
  for (size_t i = 0; i < pictures.size(); ++i) {
    const LeasedControl& control = task.controls()[i];
    inputs.push_back({control.lease->control_net(), std::move(pictures[i]), control.use->scale, control.use->range,
                      control.use->type.value_or(0)});
  }
  return memory_->Call(HintWork(task.job().options(pass), inputs.size()),
                       [&] { return pipeline_->EmbedControls(inputs); });
}

absl::StatusOr<std::shared_ptr<const ImagePrompts>> RunStart::EncodeImagePrompts(ImageTask& task) {
  if (task.image_prompts().empty()) {
    return std::shared_ptr<const ImagePrompts>();
  }
  ABSL_RETURN_IF_ERROR(task.Wanted());
  ImagePromptPictures pictures = task.TakeImagePromptPictures();
  ImagePromptInputs inputs{task.image_encoder()->image_encoder(), task.job().denoise.cfg(), {}};
  for (size_t i = 0; i < pictures.squares.size(); ++i) {
    const LeasedImagePrompt& prompt = task.image_prompts()[i];
    inputs.prompts.push_back(
        {prompt.lease->image_prompt(), std::move(pictures.squares[i]), prompt.use->scale, prompt.use->blocks});
  }
  return memory_->Call(ImagePromptWork(inputs, pipeline_->ImagePromptBytesOf(inputs)),
                       [&] { return pipeline_->EncodeImagePrompts(inputs); });
}

absl::Status RunStart::Encode(ImageRun& run, ApplyMode mode) {
  ImageTask& task = *run.task;
  const ImageJob& job = task.job();
  const Stopwatch stopwatch;
  const auto encode = [&](Pass pass, std::shared_ptr<const Conditioning>& conditioning) -> absl::Status {
    ABSL_ASSIGN_OR_RETURN(conditioning, memory_->Call(TextWork(job.prompts), [&] {
      return pipeline_->Encode(task.prompts(), job.denoise.cfg(), task.adapter_schedule(pass).at(0).set, mode);
    }));
    metrics_->CountConditioning(conditioning->was_kept());
    return absl::OkStatus();
  };
  if (TextsDiffer(
          task)) {  // before the first pass's, whose adapters then stay in effect; no swap, but a part of encode
    ABSL_RETURN_IF_ERROR(encode(Pass::kSecond, run.hires_conditioning));
  }
  ABSL_RETURN_IF_ERROR(encode(Pass::kFirst, run.conditioning));
  if (run.hires_conditioning == nullptr) {
    run.hires_conditioning = run.conditioning;
  }
  run.init = task.TakeInit();
  ControlPictures pictures = task.TakeControlPictures();
  ABSL_ASSIGN_OR_RETURN(run.controls, EmbedControls(task, Pass::kFirst, std::move(pictures.first)));
  if (job.hires.has_value()) {
    ABSL_ASSIGN_OR_RETURN(run.hires_controls, EmbedControls(task, Pass::kSecond, std::move(pictures.second)));
  }
  ABSL_ASSIGN_OR_RETURN(run.image_prompts, EncodeImagePrompts(task));
  task.summary.encode_seconds += stopwatch.Seconds();
  metrics_->ObservePhase(RequestPhase::kEncode, task.summary.encode_seconds);
  return absl::OkStatus();
}

}  // namespace hotlora
