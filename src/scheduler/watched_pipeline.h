#ifndef HOTLORA_SRC_SCHEDULER_WATCHED_PIPELINE_H_
#define HOTLORA_SRC_SCHEDULER_WATCHED_PIPELINE_H_

#include <functional>
#include <memory>
#include <vector>

#include "src/pipeline/pipeline.h"
#include "src/scheduler/work_watch.h"

namespace hotlora {

// A pipeline whose work is marked in a WorkWatch while it is under way; in all else it is `pipeline`.
class WatchedPipeline final : public Pipeline {
 public:
  // `watch` outlives this object. `in_each_step`, if there is one, runs in each step, and its time counts as the
  // step's.
  WatchedPipeline(std::unique_ptr<Pipeline> pipeline, WorkWatch* watch, std::function<void()> in_each_step);

  const ModelInfo& info() const override { return pipeline_->info(); }
  absl::StatusOr<SwapReport> Apply(const AdapterSet& set, ApplyMode mode) override;
  absl::StatusOr<std::shared_ptr<const Conditioning>> Encode(const Prompts& prompts, bool negative,
                                                             const AdapterSet& set, ApplyMode mode) override;
  bool CanShareStep(const AdapterSet& a, const AdapterSet& b) const override { return pipeline_->CanShareStep(a, b); }
  absl::StatusOr<std::shared_ptr<const InitLatents>> EncodeInit(const InitPicture& picture, VaeForm form) override;
  absl::StatusOr<std::shared_ptr<const Controls>> EmbedControls(absl::Span<const ControlInput> controls) override;
  absl::StatusOr<std::shared_ptr<const ImagePrompts>> EncodeImagePrompts(const ImagePromptInputs& inputs) override;
  absl::StatusOr<std::unique_ptr<Row>> StartRow(const DenoiseOptions& options, uint64_t seed,
                                                std::shared_ptr<const Conditioning> conditioning,
                                                AdapterSchedule adapters, std::shared_ptr<const InitLatents> init,
                                                std::shared_ptr<const Controls> controls,
                                                std::shared_ptr<const ImagePrompts> image_prompts) override;
  absl::Status Step(const BatchPlan& plan) override;
  absl::StatusOr<RgbImage> Preview(const Row& row) override;
  absl::StatusOr<RgbImage> Decode(const Row& row, VaeForm form) override;
  absl::StatusOr<BaseReport> VerifyNextModule() override;
  uint32_t module_count() const override { return pipeline_->module_count(); }
  int64_t TiledDecodeBytes(uint32_t width, uint32_t height) const override {
    return pipeline_->TiledDecodeBytes(width, height);
  }
  int64_t TiledEncodeBytes(uint32_t width, uint32_t height) const override {
    return pipeline_->TiledEncodeBytes(width, height);
  }
  ControlBytes ControlBytesOf(uint32_t width, uint32_t height) const override {
    return pipeline_->ControlBytesOf(width, height);
  }
  ImagePromptBytes ImagePromptBytesOf(const ImagePromptInputs& inputs) const override {
    return pipeline_->ImagePromptBytesOf(inputs);
  }
  int64_t AvailableMemory() const override { return pipeline_->AvailableMemory(); }
  void ReleaseCachedMemory() const override { pipeline_->ReleaseCachedMemory(); }
  std::unique_ptr<PeakMeter> MeasurePeak() const override { return pipeline_->MeasurePeak(); }
  const std::vector<MemoryArea>& memory() const override { return pipeline_->memory(); }

 private:
  const std::unique_ptr<Pipeline> pipeline_;
  WorkWatch* const watch_;
  const std::function<void()> in_each_step_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_WATCHED_PIPELINE_H_
