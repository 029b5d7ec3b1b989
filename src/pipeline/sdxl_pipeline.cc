#include "src/pipeline/sdxl_pipeline.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/status_macros.h"
#include "src/nn/grouped_merge.h"
#include "src/nn/merge_check.h"
#include "src/pipeline/applied_adapters.h"
#include "src/pipeline/conditioning_cache.h"
#include "src/pipeline/control_calls.h"
#include "src/pipeline/describe_model.h"
#include "src/pipeline/image_prompt_calls.h"
#include "src/pipeline/init_latents.h"
#include "src/pipeline/latent_preview.h"
#include "src/pipeline/prompt_encoder.h"
#include "src/pipeline/row_sampler.h"
#include "src/pipeline/unet_batch.h"
#include "src/sampling/guidance.h"
#include "src/sampling/noise_schedule.h"
#include "src/tensor/allocation_peak.h"
#include "src/tensor/available_memory.h"
#include "src/tensor/device.h"
#include "src/tensor/device_stream.h"
#include "src/tensor/seeded_noise.h"
#include "src/tensor/torch_guard.h"

namespace hotlora {
namespace {

struct SdxlConditioning final : Conditioning {
  bool was_kept() const override { return kept; }

  EncodedPrompts prompts;
  bool kept = false;
  std::shared_ptr<const SidePlan> side;  // in side mode: so that rows find it
};

// [1, 6], float32.
at::Tensor ToTensor(const SizeIds& ids, c10::Device device) {
  return at::tensor(at::ArrayRef<float>(ids.data(), ids.size()), at::TensorOptions(at::kFloat)).unsqueeze(0).to(device);
}

struct SdxlRow final : Row {
  SdxlRow(const DenoiseOptions& row_options, uint64_t seed, const NoiseSchedule& schedule,
          std::shared_ptr<const SdxlConditioning> row_conditioning, c10::Device device)
      : options(row_options),
        conditioning(std::move(row_conditioning)),
        positive(conditioning->prompts.positive, ToTensor(options.size_ids, device)),
        negative(conditioning->prompts.negative, ToTensor(options.negative_size_ids, device)),
        noise(seed),
        sampler(MakeRowSampler(options, schedule, [this](at::IntArrayRef shape) { return noise.Draw(shape); })) {}

  const DenoiseOptions& denoise() const override { return options; }
  uint32_t steps_done() const override { return sampler->steps_done(); }
  uint32_t total_steps() const override { return sampler->total_steps(); }
  uint32_t evaluations() const override { return evaluated; }
  const AdapterSchedule& adapters() const override { return schedule; }
  uint32_t controls_at(uint32_t evaluation) const override {
    return controls == nullptr ? 0 : static_cast<uint32_t>(controls->InForce(evaluation, options.evaluations()).size());
  }
  uint32_t image_prompts_seen() const override {
    return image_prompts == nullptr ? 0 : static_cast<uint32_t>(image_prompts->prompts.size());
  }
  int64_t bytes_to_keep() const override {
    return (positive.projected_text == nullptr ? text_bytes : 0) +
           (guided() && negative.projected_text == nullptr ? text_bytes : 0);
  }
  int64_t text_tokens() const { return conditioning->prompts.positive.hidden.size(1); }
  // One evaluation's `prediction` to the next latents.
  void Advance(const at::Tensor& prediction) {
    const at::Tensor estimate = options.preview_every > 0 ? sampler->Clean(latents, prediction) : at::Tensor();
    latents = sampler->Step(latents, prediction);
    if (init.has_value()) {
      latents = init->Keep(latents, *sampler);
    }
    clean = options.preview_at(steps_done()) ? estimate : at::Tensor();
  }

  // Call once an evaluation is done. Here the set in effect changes: what was made of it is let go.
  void CountEvaluation() {
    if (schedule.ChangesAt(++evaluated)) {
      side = nullptr;
    }
  }

  bool guided() const { return options.cfg_at(steps_done(), total_steps()); }

  const DenoiseOptions options;
  const std::shared_ptr<const SdxlConditioning> conditioning;
  NetworkRow positive, negative;
  int64_t text_bytes = 0;  // of the keys and values of a side
  AdapterSchedule schedule;
  std::shared_ptr<const SidePlan> side;  // of next_adapters(), once a step needs it
  SeededNoise noise;                     // draws the first latents, then what the sampler adds
  const std::unique_ptr<SamplerState> sampler;
  std::optional<InitRow> init;
  std::shared_ptr<const SdxlControls> controls;           // null: none
  std::shared_ptr<const SdxlImagePrompts> image_prompts;  // null: none
  at::Tensor latents;  // [1, latent channels, height / factor, width / factor], float32 on the device
  at::Tensor clean;    // the network's estimate of the finished latents, if a preview of it is due
  uint32_t evaluated = 0;
  bool broken = false;  // its sampler failed half-way through a step, and cannot go on
};

struct SdxlPeakMeter final : PeakMeter {
  int64_t bytes() const override { return peak.bytes(); }
  AllocationPeak peak;
};

class SdxlPipeline final : public Pipeline {
 public:
  SdxlPipeline(std::unique_ptr<SdxlModel> model, ModelInfo info, NoiseSchedule schedule, DoraWeighting dora,
               BaseSource base)
      : model_(std::move(model)),
        info_(std::move(info)),
        schedule_(std::move(schedule)),
        step_stream_(model_->place().device, DeviceStream::Priority::kHigh),
        decode_stream_(model_->place().device, DeviceStream::Priority::kLow),
        applied_(model_->modules(), model_->adaptable_weights(), dora),
        guard_(*model_, applied_, std::move(base), dora) {}

  absl::Status FitPreview() {
    return step_stream_.Run("preview", [this] {
      preview_.emplace(model_->vae_decoder(), model_->place().device);
      return absl::OkStatus();
    });
  }

  absl::Status ReserveConditioning(uint64_t bytes) {
    return step_stream_.Run("storage of encoded prompts", [&] {
      const SdxlConfig& config = model_->config();
      const ComputePlace& place = model_->place();
      kept_conditioning_.emplace(bytes, config.unet.cross_attention_width, config.text_encoder_2.projection,
                                 at::TensorOptions(place.device).dtype(place.dtype));
      if (kept_conditioning_->bytes() > 0) {
        memory_.push_back(
            {"encoded prompts for further requests", DeviceName(place.device), kept_conditioning_->bytes()});
      }
      return absl::OkStatus();
    });
  }

  // Tries the merge where it will run. Internal if it makes wrong weights: then no adapter could be trusted.
  absl::Status CheckMerge() {
    const auto merge = [](absl::Span<const WeightToMerge> weights) {
      MergeWeights(weights, DoraWeighting::kScaledChange);
    };
    return step_stream_.Run("check of the merge", [&]() -> absl::Status {
      const std::optional<std::string> fault = FindMergeFault(model_->place().device, model_->place().dtype, merge);
      return fault.has_value() ? MakeError(absl::StatusCode::kInternal, error_reason::kInternal,
                                           absl::StrCat("adapters are merged wrongly on ", info_.device, ": ", *fault,
                                                        "; update the GPU's driver, or start with --device cpu"))
                               : absl::OkStatus();
    });
  }

  // Merges the base adapters and remembers the bytes that VerifyNextModule compares with.
  absl::Status PrepareBase() {
    ABSL_RETURN_IF_ERROR(step_stream_.Run("base adapters", [this] { return guard_.MergeBaseAdapters(); }));
    info_.sha256 = guard_.sha256();
    return step_stream_.Run("digests of the base weights", [this] {
      guard_.RecordDigests();
      memory_ = WeightAreas(*model_);
      return absl::OkStatus();
    });
  }

  const ModelInfo& info() const override { return info_; }

  absl::StatusOr<SwapReport> Apply(const AdapterSet& set, ApplyMode mode) override {
    SwapReport report;
    ABSL_RETURN_IF_ERROR(step_stream_.Run("adapter swap", [&] {
      report = applied_.Apply(set, mode);
      return absl::OkStatus();
    }));
    return report;
  }

  absl::StatusOr<std::shared_ptr<const Conditioning>> Encode(const Prompts& prompts, bool negative,
                                                             const AdapterSet& set, ApplyMode mode) override {
    auto conditioning = std::make_shared<SdxlConditioning>();
    ABSL_RETURN_IF_ERROR(step_stream_.Run("text encoding", [&]() -> absl::Status {
      applied_.Apply(set, mode);
      if (mode == ApplyMode::kSide) {
        conditioning->side = applied_.SideOf(set);
        applied_.Merge(conditioning->side->merge);
      }
      const std::string key = ConditioningKey(prompts, negative, set, mode, applied_.repairs());
      if (std::optional<EncodedPrompts> kept = kept_conditioning_->Find(key); kept.has_value()) {
        conditioning->prompts = *std::move(kept);
        conditioning->kept = true;
        return absl::OkStatus();
      }
      ABSL_ASSIGN_OR_RETURN(
          conditioning->prompts,
          EncodePrompts(*model_, prompts, negative, mode == ApplyMode::kSide ? &conditioning->side->table : nullptr));
      kept_conditioning_->Keep(key, conditioning->prompts);
      return absl::OkStatus();
    }));
    return conditioning;
  }

  bool CanShareStep(const AdapterSet& a, const AdapterSet& b) const override {
    return applied_.SideMergeFingerprint(a) == applied_.SideMergeFingerprint(b);
  }

  absl::StatusOr<std::shared_ptr<const InitLatents>> EncodeInit(const InitPicture& picture, VaeForm form) override {
    std::shared_ptr<const SdxlInitLatents> init;
    ABSL_RETURN_IF_ERROR(decode_stream_.Run("encoding of an image", [&] {
      init = std::make_shared<SdxlInitLatents>(EncodeInitPicture(
          model_->vae_encoder(), picture, form, model_->config().vae.factor(), model_->place().device));
      return absl::OkStatus();
    }));
    return init;
  }

  absl::StatusOr<std::shared_ptr<const Controls>> EmbedControls(absl::Span<const ControlInput> controls) override {
    auto embedded = std::make_shared<SdxlControls>();
    ABSL_RETURN_IF_ERROR(step_stream_.Run("embedding of control pictures", [&] {
      for (const ControlInput& control : controls) {
        embedded->controls.push_back(EmbedControl(control));
      }
      return absl::OkStatus();
    }));
    return embedded;
  }

  absl::StatusOr<std::shared_ptr<const ImagePrompts>> EncodeImagePrompts(const ImagePromptInputs& inputs) override {
    std::shared_ptr<const ImagePrompts> encoded;
    ABSL_RETURN_IF_ERROR(step_stream_.Run("encoding of image prompts", [&] {
      encoded = EncodeEachImagePrompt(inputs);
      return absl::OkStatus();
    }));
    return encoded;
  }

  absl::StatusOr<std::unique_ptr<Row>> StartRow(const DenoiseOptions& options, uint64_t seed,
                                                std::shared_ptr<const Conditioning> conditioning,
                                                AdapterSchedule adapters, std::shared_ptr<const InitLatents> init,
                                                std::shared_ptr<const Controls> controls,
                                                std::shared_ptr<const ImagePrompts> image_prompts) override {
    std::unique_ptr<SdxlRow> row;
    ABSL_RETURN_IF_ERROR(step_stream_.Run("noise", [&] {
      row = std::make_unique<SdxlRow>(options, seed, schedule_,
                                      std::static_pointer_cast<const SdxlConditioning>(std::move(conditioning)),
                                      model_->place().device);
      row->text_bytes = row->text_tokens() * model_->unet().text_width() *
                        static_cast<int64_t>(c10::elementSize(model_->place().dtype));
      row->schedule = std::move(adapters);
      row->controls = std::static_pointer_cast<const SdxlControls>(std::move(controls));
      row->image_prompts = std::static_pointer_cast<const SdxlImagePrompts>(std::move(image_prompts));
      if (init != nullptr) {
        row->init = StartInitRow(static_cast<const SdxlInitLatents&>(*init), model_->vae_encoder(), row->noise);
        row->latents = FirstLatents(*row->init, options.strength, *row->sampler);
        return absl::OkStatus();
      }
      const VaeConfig& vae = model_->config().vae;
      const int64_t height = options.height / vae.factor(), width = options.width / vae.factor();
      const at::Tensor noise = row->noise.Draw({1, vae.latent_channels, height, width});
      row->latents = (noise * row->sampler->init_noise_sigma()).to(model_->place().device);
      return absl::OkStatus();
    }));
    return row;
  }

  absl::Status Step(const BatchPlan& plan) override {
    return step_stream_.Run("denoising step", [&]() -> absl::Status {
      std::vector<SdxlRow*> left;
      for (Row* row : plan.rows) {
        left.push_back(static_cast<SdxlRow*>(row));
        if (left.back()->broken) {
          return MakeError(absl::StatusCode::kInternal, error_reason::kRowBroken,
                           "an earlier step of the image failed half-way");
        }
        if (plan.mode == ApplyMode::kSide && left.back()->side == nullptr) {
          left.back()->side = applied_.SideOf(left.back()->next_adapters().set);
        }
      }
      // The weights serve one merged state at a time, and a batch has one length of text: the rows alike in both go
      // through the UNet together.
      const auto merged = [&](const SdxlRow* row) -> const std::string& {
        return plan.mode == ApplyMode::kSide ? row->side->merge.fingerprint : row->next_adapters().fingerprint;
      };
      while (!left.empty()) {
        const SdxlRow* const front = left.front();
        const std::string& fingerprint = merged(front);
        const int64_t tokens = front->text_tokens();
        const auto others = std::stable_partition(left.begin(), left.end(), [&](const SdxlRow* row) {
          return row->text_tokens() == tokens && merged(row) == fingerprint;
        });
        if (plan.mode == ApplyMode::kSide) {
          applied_.Merge(front->side->merge);
        } else {
          applied_.Apply(front->next_adapters().set, plan.mode);
        }
        StepRows({left.begin(), others}, plan.mode);
        left.erase(left.begin(), others);
      }
      return absl::OkStatus();
    });
  }

  absl::StatusOr<RgbImage> Preview(const Row& row) override {
    RgbImage image;
    ABSL_RETURN_IF_ERROR(step_stream_.Run("preview", [&] {
      const auto& sdxl_row = static_cast<const SdxlRow&>(row);
      TORCH_CHECK(sdxl_row.clean.defined(), "no preview is due");
      image = preview_->Draw(sdxl_row.init.has_value() ? sdxl_row.init->KeepClean(sdxl_row.clean) : sdxl_row.clean);
      return absl::OkStatus();
    }));
    return image;
  }

  absl::StatusOr<RgbImage> Decode(const Row& row, VaeForm form) override {
    RgbImage image;
    ABSL_RETURN_IF_ERROR(decode_stream_.Run("decoding", [&]() -> absl::Status {
      const auto& sdxl_row = static_cast<const SdxlRow&>(row);
      if (!at::isfinite(sdxl_row.latents).all().item<bool>()) {
        throw NonfiniteError("the latents are not finite; use smaller adapter weights");
      }
      const VaeDecoder& decoder = model_->vae_decoder();
      const at::Tensor decoded = form == VaeForm::kTiled ? decoder.forward_tiled(sdxl_row.latents)
                                                         : decoder.forward(sdxl_row.latents);  // [1, 3, height, width]
      image = ToRgbImage(decoded);
      return absl::OkStatus();
    }));
    return image;
  }

  absl::StatusOr<BaseReport> VerifyNextModule() override {
    BaseReport check;
    ABSL_RETURN_IF_ERROR(step_stream_.Run("base weight check", [&] {
      check = guard_.VerifyNext();
      return absl::OkStatus();
    }));
    return check;
  }

  uint32_t module_count() const override { return static_cast<uint32_t>(model_->modules().modules.size()); }
  const std::vector<MemoryArea>& memory() const override { return memory_; }

  int64_t TiledDecodeBytes(uint32_t width, uint32_t height) const override {
    const int64_t factor = model_->config().vae.factor();
    return model_->vae_decoder().TiledBytes(height / factor, width / factor);
  }

  int64_t TiledEncodeBytes(uint32_t width, uint32_t height) const override {
    return model_->vae_encoder().TiledBytes(height, width);
  }

  ControlBytes ControlBytesOf(uint32_t width, uint32_t height) const override {
    const int64_t factor = model_->config().vae.factor();
    const ControlElements elements = ControlElementsOf(model_->config().unet, height / factor, width / factor, factor);
    const auto size = static_cast<int64_t>(c10::elementSize(model_->place().dtype));
    return {size * elements.hint, size * elements.embedding, size * elements.outputs, size * elements.text};
  }

  ImagePromptBytes ImagePromptBytesOf(const ImagePromptInputs& inputs) const override {
    return BytesOfImagePrompts(inputs);
  }

  int64_t AvailableMemory() const override {
    int64_t bytes = 0;
    const absl::Status status = GuardTorch("look at the device's memory", [&] {
      bytes = hotlora::AvailableMemory(model_->place().device);
      return absl::OkStatus();
    });
    return status.ok() ? bytes : std::numeric_limits<int64_t>::max();  // what comes next will meet the same error
  }

  void ReleaseCachedMemory() const override { hotlora::ReleaseCachedMemory(); }

  std::unique_ptr<PeakMeter> MeasurePeak() const override { return std::make_unique<SdxlPeakMeter>(); }

 private:
  // Names the adapters that the row meets in its next evaluation: equal names, equal weights and side branches.
  std::string InEffectOn(const SdxlRow& row, ApplyMode mode) const {
    const std::string& set = row.next_adapters().fingerprint;
    return absl::StrCat(applied_.repairs(), mode == ApplyMode::kSide && !set.empty() ? ";side;" : ";", set);
  }

  void StepRows(const std::vector<SdxlRow*>& rows, ApplyMode mode) const {
    UnetBatch batch;  // an image under guidance has two rows: negative, then positive
    for (SdxlRow* row : rows) {
      const at::Tensor sample = row->sampler->ScaleInput(row->latents);
      const SideTable* side = mode == ApplyMode::kSide ? &row->side->table : nullptr;
      const std::string adapters = InEffectOn(*row, mode);
      if (row->guided()) {
        batch.Add({&row->negative, sample, row->sampler.get(), row->evaluated, adapters, side});
      }
      batch.Add({&row->positive, sample, row->sampler.get(), row->evaluated, adapters, side});
      if (row->controls != nullptr) {
        batch.Control(row->guided() ? 2 : 1, row->controls->InForce(row->evaluated, row->options.evaluations()));
      }
      if (row->image_prompts != nullptr) {
        batch.Prompt(*row->image_prompts, row->guided());
      }
    }
    const at::Tensor predictions = batch.Predict(model_->unet(), model_->place().dtype).to(at::kFloat);
    int64_t next = 0;
    for (SdxlRow* row : rows) {
      at::Tensor prediction = predictions.narrow(0, next, 1);  // [1, latent channels, height, width]
      ++next;
      if (row->guided()) {
        prediction = Guide(prediction, predictions.narrow(0, next, 1), row->options.guidance_scale,
                           row->options.guidance_rescale);
        ++next;
      }
      row->broken = true;
      row->Advance(prediction);
      row->broken = false;
      row->CountEvaluation();
      if (row->done()) {
        row->positive.Release();
        row->negative.Release();
      }
    }
  }

  const std::unique_ptr<SdxlModel> model_;
  ModelInfo info_;  // constant after PrepareBase
  const NoiseSchedule schedule_;
  // Each call of this class ends in a wait for its stream, so what one thread hands to another is done, and no other
  // order between the streams is needed.
  const DeviceStream step_stream_, decode_stream_;
  std::optional<LatentPreview> preview_;                // set before use
  std::optional<ConditioningCache> kept_conditioning_;  // set before use; step thread only
  AppliedAdapters applied_;                             // step thread only, like the rest
  BaseGuard guard_;
  std::vector<MemoryArea> memory_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> MakeSdxlPipeline(std::unique_ptr<SdxlModel> model, std::string name,
                                                           DoraWeighting dora, BaseSource base,
                                                           uint64_t conditioning_bytes) {
  ABSL_ASSIGN_OR_RETURN(SchedulerConfig scheduler, ParseSchedulerConfig(model->scheduler_config()));
  ModelInfo info = DescribeModel(*model, std::move(name));
  std::unique_ptr<SdxlPipeline> pipeline;
  ABSL_RETURN_IF_ERROR(GuardTorch("pipeline", [&] {
    pipeline = std::make_unique<SdxlPipeline>(std::move(model), std::move(info), NoiseSchedule(std::move(scheduler)),
                                              dora, std::move(base));
    return absl::OkStatus();
  }));
  ABSL_RETURN_IF_ERROR(pipeline->CheckMerge());
  ABSL_RETURN_IF_ERROR(pipeline->PrepareBase());
  ABSL_RETURN_IF_ERROR(pipeline->FitPreview());
  ABSL_RETURN_IF_ERROR(pipeline->ReserveConditioning(conditioning_bytes));
  return pipeline;
}

const at::Tensor& RowLatentsForTest(const Row& row) { return static_cast<const SdxlRow&>(row).latents; }

ConditioningTensors TensorsForTest(const Conditioning& conditioning) {
  const auto& sdxl = static_cast<const SdxlConditioning&>(conditioning);
  const auto& [positive, negative] = sdxl.prompts;
  return {positive.hidden, positive.pooled, negative.hidden, negative.pooled};
}

}  // namespace hotlora
