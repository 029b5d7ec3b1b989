#ifndef HOTLORA_SRC_PIPELINE_PIPELINE_H_
#define HOTLORA_SRC_PIPELINE_PIPELINE_H_

// How one request goes: apply adapters -> encode -> step ... step -> decode. This interface has no LibTorch in it, so
// that the scheduler, the engine and their tests link without it; SdxlPipeline is the implementation.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "src/image/rgb_image.h"
#include "src/nn/adapter_schedule.h"
#include "src/nn/adapter_set.h"
#include "src/pipeline/init_picture.h"
#include "src/request/evaluation_range.h"
#include "src/request/image_job.h"
#include "src/request/model_info.h"

namespace hotlora {

struct PlacedControlNet;    // sdxl/placed_control_net.h
struct PlacedImageEncoder;  // sdxl/placed_image_prompt.h
struct PlacedImagePrompt;   // sdxl/placed_image_prompt.h

// The text side of a request as the UNet takes it (positive, and negative where guidance needs it). Immutable.
class Conditioning {
 public:
  virtual ~Conditioning() = default;
  // Whether it was kept from an earlier request instead of encoded.
  virtual bool was_kept() const = 0;
};

// The init image of a request as the network takes it, and its mask. Immutable.
class InitLatents {
 public:
  virtual ~InitLatents() = default;
};

// A control of a request: a net that is lent, the picture that it sees, and how.
struct ControlInput {
  std::shared_ptr<const PlacedControlNet> net;  // the lease of it outlives the result of EmbedControls
  RgbImage picture;                             // of the images' size
  double scale = 1.0;
  EvaluationRange range;
  uint32_t type = 0;  // of a union net
};

// The controls of a request as the network takes them, for images of one size. Immutable.
class Controls {
 public:
  virtual ~Controls() = default;
};

// Bytes that controls take where the networks compute, by their shapes.
struct ControlBytes {
  int64_t hint = 0;       // of an embedded picture, as long as its request runs
  int64_t embedding = 0;  // that embedding a picture takes beside
  int64_t outputs = 0;    // of a net for one row of the network, until the step is done
  int64_t text = 0;       // of a net, while it runs, for the text of one row, of one chunk
};

// An image prompt of a request: an IP-Adapter that is lent, what it sees, and how much the UNet sees of that.
struct ImagePromptInput {
  std::shared_ptr<const PlacedImagePrompt> net;
  std::vector<RgbImage> pictures;  // at least one; squares as the encoder sees them (RequestPictures::image_prompts)
  double scale = 1.0;
  std::vector<BlockWeight> blocks;  // of cross attentions, in place of scale; each prefix fits one
};

// All image prompts of a request.
struct ImagePromptInputs {
  std::shared_ptr<const PlacedImageEncoder> encoder;  // that is lent and fits each net
  bool negative = true;                               // whether a step has guidance
  std::vector<ImagePromptInput> prompts;
};

// Bytes that image prompts take where the networks compute, by their shapes.
struct ImagePromptBytes {
  int64_t kept = 0;      // as long as their request runs
  int64_t encoding = 0;  // beside those, while they are encoded; without what kernels take for themselves
};

// The image prompts of a request as the network takes them: what its cross attentions see of the pictures in every step
// and both passes. Immutable.
class ImagePrompts {
 public:
  virtual ~ImagePrompts() = default;
};

// One image on its way: its latents, noise generator, sampler state and step index, with everything that shapes its
// next step. Belongs to one request; only the step thread touches it until it is decoded.
class Row {
 public:
  virtual ~Row() = default;
  virtual const DenoiseOptions& denoise() const = 0;
  virtual uint32_t steps_done() const = 0;
  virtual uint32_t total_steps() const = 0;
  // How often the network has run for this row.
  virtual uint32_t evaluations() const = 0;
  // The adapters of its request.
  virtual const AdapterSchedule& adapters() const = 0;
  // Those that are in effect in its next evaluation.
  const AdapterSchedule::Part& next_adapters() const { return adapters().at(evaluations()); }
  // How many of its controls are in force in that evaluation.
  virtual uint32_t controls_at(uint32_t evaluation) const = 0;
  // How many image prompts the network sees.
  virtual uint32_t image_prompts_seen() const = 0;
  // Bytes where the networks compute that its next step takes and keeps until its last one; 0 once it has them.
  virtual int64_t bytes_to_keep() const = 0;
  bool done() const { return steps_done() >= total_steps(); }
};

// How adapters take effect: two forms of one formula, W' = W + sum of s_k dW_k.
enum class ApplyMode {
  kMerged,  // in the weights themselves: nothing per step, but one set at a time
  kSide,    // beside the weights, row by row: one step may mix sets. What has no such form is merged all the same
};

// kAuto: merged while one adapter set has the device to itself, side while several want it (`mixed`).
inline ApplyMode ModeFor(ApplyPolicy policy, bool mixed) {
  return policy == ApplyPolicy::kSide || (policy == ApplyPolicy::kAuto && mixed) ? ApplyMode::kSide
                                                                                 : ApplyMode::kMerged;
}

// The rows of one denoising step. Each has its own timestep, sampler state, conditioning, guidance and adapter set; all
// have the same width and height.
struct BatchPlan {
  std::vector<Row*> rows;
  ApplyMode mode = ApplyMode::kMerged;
};

// What bringing an adapter set into effect took.
struct SwapReport {
  bool changed = false;  // false: the set was in effect already in this mode, nothing was done
  // One pass over the weights restores and merges: these are its time, divided by the parameters that each had.
  double restore_seconds = 0.0;
  double apply_seconds = 0.0;
  uint32_t modules_restored = 0;
  uint32_t modules_merged = 0;
};

// The most bytes of device memory that the thread which made it has taken since, beyond what it held then. Read and
// destroyed on that thread.
class PeakMeter {
 public:
  virtual ~PeakMeter() = default;
  virtual int64_t bytes() const = 0;
};

// How the VAE computes: on the whole picture at once, or band by band, which takes less memory and more time for the
// same result up to rounding.
enum class VaeForm { kWhole, kTiled };

// Threads: one step thread calls Apply, Encode, EmbedControls, EncodeImagePrompts, StartRow, Step and Preview; a decode
// thread may call EncodeInit and Decode at the same time. Errors: never throws. ResourceExhausted (OUT_OF_MEMORY) fails
// that call alone and leaves the pipeline usable; Internal with reason DEVICE_FAILED means the device is lost.
class Pipeline {
 public:
  virtual ~Pipeline() = default;

  virtual const ModelInfo& info() const = 0;

  // Makes `set` the adapters in effect, exactly; equal set and mode, no work. Encode and Step call it
  // themselves if needed; call it to learn what a swap takes.
  virtual absl::StatusOr<SwapReport> Apply(const AdapterSet& set, ApplyMode mode) = 0;

  // Text to conditioning under `set`. `negative`: whether the negative side is needed (guidance on). One that was kept
  // from an earlier request has the bytes that encoding gives.
  virtual absl::StatusOr<std::shared_ptr<const Conditioning>> Encode(const Prompts& prompts, bool negative,
                                                                     const AdapterSet& set, ApplyMode mode) = 0;

  // Whether a step in side mode runs rows of both sets in one call of the network: what must be merged of them is the
  // same (most often nothing). Others share a step too, but one after the other, each with a rebuild of weights.
  virtual bool CanShareStep(const AdapterSet& a, const AdapterSet& b) const = 0;

  // An init image to latents.
  virtual absl::StatusOr<std::shared_ptr<const InitLatents>> EncodeInit(const InitPicture& picture, VaeForm form) = 0;

  // What the nets make of their pictures, once for all images and steps.
  virtual absl::StatusOr<std::shared_ptr<const Controls>> EmbedControls(absl::Span<const ControlInput> controls) = 0;

  // What cross attentions see of the pictures, once for all images, steps and passes.
  virtual absl::StatusOr<std::shared_ptr<const ImagePrompts>> EncodeImagePrompts(const ImagePromptInputs& inputs) = 0;

  // A row at its first step. It starts from noise of `seed`, scaled for the schedule. If `init` is not null, it has the
  // options' size, and the noise is laid over it. `conditioning` was encoded under a set of the same TextFingerprint as
  // the one that `adapters` begin with.
  // `controls` may be null; each is in force in the evaluations of its range. `image_prompts` may be null.
  virtual absl::StatusOr<std::unique_ptr<Row>> StartRow(const DenoiseOptions& options, uint64_t seed,
                                                        std::shared_ptr<const Conditioning> conditioning,
                                                        AdapterSchedule adapters,
                                                        std::shared_ptr<const InitLatents> init,
                                                        std::shared_ptr<const Controls> controls,
                                                        std::shared_ptr<const ImagePrompts> image_prompts) = 0;

  // One evaluation of the network for every row in the plan, each under its next_adapters(), whatever the mode. It is a
  // denoising step, except with the samplers Heun and DPM2, whose steps_done() moves at a step's second one. Returns
  // when the work is done, not merely queued. After an error each row has had its evaluation, as evaluations() tells,
  // or may be stepped again, which fails if the row cannot go on. REQUIRES: no row done; sizes alike.
  virtual absl::Status Step(const BatchPlan& plan) = 0;

  // What the row's last step made of its image, a fraction of its size and roughly, for next to no work. REQUIRES: a
  // preview was due then (DenoiseOptions::preview_at).
  virtual absl::StatusOr<RgbImage> Preview(const Row& row) = 0;

  // The row's latents, as they are, as an image.
  virtual absl::StatusOr<RgbImage> Decode(const Row& row, VaeForm form) = 0;

  // Checks the next module in turn: its clean weight still has the bytes it had at start, and if no adapter is in
  // effect, the live weight equals it. What differs is rebuilt from the checkpoint (once in a round of all modules;
  // that reads the whole of it). For idle moments of the step thread, between steps otherwise; a module takes
  // milliseconds.
  virtual absl::StatusOr<BaseReport> VerifyNextModule() = 0;

  // How many modules a round of VerifyNextModule has.
  virtual uint32_t module_count() const = 0;

  // No less than what Decode or EncodeInit take in the tiled form for so many pixels on a side. Thread-safe.
  virtual int64_t TiledDecodeBytes(uint32_t width, uint32_t height) const = 0;
  virtual int64_t TiledEncodeBytes(uint32_t width, uint32_t height) const = 0;

  // What controls of images of that size take, with nets like the model's UNet and hint networks as those of published
  // nets. A step takes no more for its controls than their outputs and one net's text, since all else of a net takes no
  // more than the UNet after it. Thread-safe.
  virtual ControlBytes ControlBytesOf(uint32_t width, uint32_t height) const = 0;

  // What EncodeImagePrompts takes. Thread-safe.
  virtual ImagePromptBytes ImagePromptBytesOf(const ImagePromptInputs& inputs) const = 0;

  // Bytes that can still be allocated where the networks compute. Thread-safe; takes some tens of microseconds.
  virtual int64_t AvailableMemory() const = 0;

  // Gives back to the system what allocators keep for later, so that AvailableMemory counts it. Thread-safe; what runs
  // has to fetch it again.
  virtual void ReleaseCachedMemory() const = 0;

  // Measures what the calling thread's calls take from now on. Thread-safe.
  virtual std::unique_ptr<PeakMeter> MeasurePeak() const = 0;

  // What stays in memory from start to end, fixed once the pipeline stands. Thread-safe.
  virtual const std::vector<MemoryArea>& memory() const = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_PIPELINE_H_
