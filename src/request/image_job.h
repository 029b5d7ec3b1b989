#ifndef HOTLORA_SRC_REQUEST_IMAGE_JOB_H_
#define HOTLORA_SRC_REQUEST_IMAGE_JOB_H_

// A validated request: every default filled in, every value inside its limits. What scheduler and pipeline work
// with.

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "src/request/block_weights.h"
#include "src/request/evaluation_range.h"
#include "src/request/image_request.h"
#include "src/request/prompt_embedding.h"

namespace hotlora {

struct Prompts {
  std::string prompt, prompt_2;
  // nullopt: the caller gave no negative prompt: zeroed embeddings if the model's force_zeros_for_empty_prompt says
  // so, an encoded "" elsewhere.
  std::optional<std::string> negative_prompt;
  std::string negative_prompt_2;            // used only with a negative_prompt
  uint32_t clip_skip = 0;                   // of the positive prompt only
  bool weighted = false;                    // (emphasis:1.2) is read in all four texts
  bool long_prompts = false;                // texts over 75 tokens go on in further chunks, BREAK begins one
  std::vector<PromptEmbedding> embeddings;  // those of the job, once their files are read
};

// (original height, original width, crop top, crop left, target height, target width): height first, as SDXL was
// trained.
using SizeIds = std::array<float, 6>;

struct AdapterUse {
  std::string name;
  double weight = 1.0;
  double text_encoder_weight = 1.0;
  EvaluationRange range;            // on the UNet alone
  std::vector<BlockWeight> blocks;  // of the UNet, in place of weight; by prefix, each once
};

// A ControlNet, and the picture that it sees.
struct ControlUse {
  std::string name;
  std::string image;  // a file as sent, of which the header alone is checked
  double scale = 1.0;
  EvaluationRange range;
  std::optional<uint32_t> type;  // of a union net; checked once the net is read
  std::string field;             // in the request: "controls[0]"
};

// An image prompt (IP-Adapter), and the pictures that it sees, whose tokens are joined.
struct ImagePromptUse {
  std::string name;
  std::vector<std::string> images;  // files as sent, of which the headers alone are checked; at least one
  double scale = 1.0;
  std::vector<BlockWeight> blocks;  // of cross attentions, in place of scale; by prefix, each once
  std::string field;                // in the request: "image_prompts[0]"
};

// A textual-inversion embedding, and the text that stands for it in the prompts.
struct EmbeddingUse {
  std::string name, token;
};

// How one image is denoised.
struct DenoiseOptions {
  uint32_t width = 0, height = 0;  // pixels
  uint32_t steps = 30;
  double guidance_scale = 5.0;  // classifier-free guidance is off at 1 and below
  double guidance_rescale = 0.0;
  double guidance_start = 0.0, guidance_end = 1.0;  // guidance runs from the one fraction of the steps up to the other
  Sampler sampler = Sampler::kEuler;
  NoiseScheduleKind schedule = NoiseScheduleKind::kDefault;
  double eta = 0.0;  // randomness of TCD and DDIM, 0 to 1
  SizeIds size_ids{};
  SizeIds negative_size_ids{};
  double strength = 1.0;       // above 0, at most 1: the part of the steps that an init image goes through
  uint32_t preview_every = 0;  // steps between previews; 0: none

  // Evaluations of the network for one image: one a step; Heun and the DPM2 samplers make two in each step but the
  // last.
  uint32_t evaluations() const {
    const bool two = sampler == Sampler::kHeun || sampler == Sampler::kDpm2 || sampler == Sampler::kDpm2Ancestral;
    return two ? 2 * steps_run() - 1 : steps_run();
  }

  bool same_size(const DenoiseOptions& other) const { return width == other.width && height == other.height; }
  // An image that begins with another skips the noisiest steps; with noise there is none to skip.
  uint32_t first_step() const { return steps - std::min(steps, static_cast<uint32_t>(steps * strength)); }
  uint32_t steps_run() const { return steps - first_step(); }
  // Whether a preview is due once `steps_done` steps are done.
  bool preview_at(uint32_t steps_done) const {
    return preview_every > 0 && steps_done > 0 && steps_done % preview_every == 0;
  }

  bool cfg() const { return guidance_scale > 1.0; }
  // Whether step `step` (from 0) of `total` runs guidance.
  bool cfg_at(uint32_t step, uint32_t total) const {
    const double place = static_cast<double>(step) / total;
    return cfg() && place >= guidance_start && place < guidance_end;
  }
};

// An image goes through one pass of denoising, or with a hires pass through two: the second begins with the finished
// image of the first, resized.
enum class Pass { kFirst, kSecond };

struct ImageJob {
  std::string request_id;
  Prompts prompts;
  DenoiseOptions denoise;
  std::optional<DenoiseOptions> hires;  // the second pass, with its own size, steps and strength; nullopt: none
  double hires_scale = 1.0;             // as the request has it
  uint64_t seed = 0;                    // image i uses seed + i, wrapping
  uint32_t num_images = 1;
  std::vector<AdapterUse> adapters;  // in request order, then those of tags, without those that have no effect
  std::vector<EmbeddingUse> embeddings;
  std::vector<ControlUse> controls;           // in request order, without those that are never in force
  std::vector<ImagePromptUse> image_prompts;  // in request order, without those whose scales are all 0
  // Files as sent, of which the headers alone are checked; empty: none. A mask is never without an image.
  std::string init_image, mask_image;
  ImageFormat format = ImageFormat::kPng;
  uint32_t quality = 90;
  int32_t priority = 0;
  std::string caller;                            // image_request.h
  absl::Time deadline = absl::InfiniteFuture();  // image_request.h

  bool has_init() const { return !init_image.empty(); }
  // REQUIRES: the job has that pass.
  const DenoiseOptions& options(Pass pass) const { return pass == Pass::kFirst ? denoise : *hires; }
  // The pass that makes the finished images.
  const DenoiseOptions& last_pass() const { return hires.has_value() ? *hires : denoise; }
  bool has_pictures() const { return has_init() || !controls.empty() || !image_prompts.empty(); }
  // How many of its controls are in force in that evaluation of that pass, and the most in any of its evaluations.
  uint32_t controls_at(uint32_t evaluation, Pass pass) const;
  uint32_t most_controls(Pass pass) const;
};

inline uint32_t ImageJob::controls_at(uint32_t evaluation, Pass pass) const {
  const uint32_t total = options(pass).evaluations();
  return static_cast<uint32_t>(std::count_if(controls.begin(), controls.end(), [&](const ControlUse& control) {
    return control.range.Holds(evaluation, total);
  }));
}

inline uint32_t ImageJob::most_controls(Pass pass) const {
  uint32_t most = 0;
  for (uint32_t evaluation = 0; !controls.empty() && evaluation < options(pass).evaluations(); ++evaluation) {
    most = std::max(most, controls_at(evaluation, pass));
  }
  return most;
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_IMAGE_JOB_H_
