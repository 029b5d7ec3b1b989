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

#include "src/nn/adapter_set.h"
#include "src/request/image_job.h"

namespace hotlora {

// The text side of a request as the UNet takes it (positive, and negative where guidance needs it). Immutable.
class Conditioning {
 public:
  virtual ~Conditioning() = default;
};

// One image on its way: its latents, noise generator, sampler state and step index, with everything that shapes its
// next step. Belongs to one request; only the step thread touches it until it is decoded.
class Row {
 public:
  virtual ~Row() = default;
  virtual uint32_t steps_done() const = 0;
  virtual uint32_t total_steps() const = 0;
  bool done() const { return steps_done() >= total_steps(); }
};

// The rows of one denoising step. Each has its own timestep, sampler state, conditioning, guidance and adapter set; all
// have the same width and height.
struct BatchPlan {
  std::vector<Row*> rows;
};

// What bringing an adapter set into effect took.
struct SwapReport {
  bool changed = false;  // false: the set was in effect already, nothing was done
  double restore_seconds = 0.0;
  double apply_seconds = 0.0;
  uint32_t modules_restored = 0;
  uint32_t modules_merged = 0;
};

struct RgbImage {
  uint32_t width = 0, height = 0;
  std::vector<uint8_t> pixels;  // height x width x 3, rows top-down, interleaved, no padding
};

// Fixed once the pipeline stands.
struct ModelInfo {
  std::string name;    // last part of the checkpoint's path
  std::string sha256;  // of its weights
  std::string dtype;   // "float32", "bfloat16", "float16"
  std::string device;  // "cpu" or "cuda:N"
  uint32_t native_size = 1024;
  uint32_t max_clip_skip = 0;
};

// Threads: one step thread calls Apply, Encode, StartRow and Step; a decode thread may call Decode at the same time.
// Errors: never throws. ResourceExhausted (OUT_OF_MEMORY) fails that call alone and leaves the pipeline usable;
// Internal with reason DEVICE_FAILED means the device is lost.
class Pipeline {
 public:
  virtual ~Pipeline() = default;

  virtual const ModelInfo& info() const = 0;

  // Makes `set` the adapters in effect, exactly; equal set, no work.
  virtual absl::StatusOr<SwapReport> Apply(const AdapterSet& set) = 0;

  // Text to conditioning under `set`, which it applies first if it is not in effect. `negative`: whether the negative
  // side is needed (guidance on).
  virtual absl::StatusOr<std::shared_ptr<const Conditioning>> Encode(const Prompts& prompts, bool negative,
                                                                     const AdapterSet& set) = 0;

  // A row at its first step: noise of `seed` scaled for the schedule.
  virtual absl::StatusOr<std::unique_ptr<Row>> StartRow(const DenoiseOptions& options, uint64_t seed,
                                                        std::shared_ptr<const Conditioning> conditioning,
                                                        AdapterSet set) = 0;

  // One evaluation of the network for every row in the plan, each under its own adapter set: a denoising step, except
  // with Heun's sampler, whose steps_done() moves at a step's second one. Returns when the work is done, not merely
  // queued. After an error the rows of the plan are of no further use. REQUIRES: no row done; sizes alike.
  virtual absl::Status Step(const BatchPlan& plan) = 0;

  // The finished row as an image.
  virtual absl::StatusOr<RgbImage> Decode(const Row& row) = 0;

  // Checks the next module in turn: its clean weight still has the bytes it had at start, and where no adapter is in
  // effect the live weight equals it. False where one does not. For idle moments of the step thread; a module takes
  // milliseconds.
  virtual absl::StatusOr<bool> VerifyNextModule() = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_PIPELINE_H_
