#ifndef HOTLORA_SRC_REQUEST_IMAGE_JOB_H_
#define HOTLORA_SRC_REQUEST_IMAGE_JOB_H_

// A validated request: every default filled in, every value inside its limits. What admission, scheduler and pipeline
// work with.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/request/image_request.h"

namespace hotlora {

struct Prompts {
  std::string prompt, prompt_2;
  // nullopt: the caller gave no negative prompt: zeroed embeddings where the model's force_zeros_for_empty_prompt says
  // so, an encoded "" elsewhere.
  std::optional<std::string> negative_prompt;
  std::string negative_prompt_2;  // used only with a negative_prompt
  uint32_t clip_skip = 0;         // of the positive prompt only
  bool weighted = false;          // (emphasis:1.2) is read in all four texts
  bool long_prompts = false;      // texts over 75 tokens go on in further chunks, BREAK begins one
};

// (original height, original width, crop top, crop left, target height, target width): height first, as SDXL was
// trained.
using SizeIds = std::array<float, 6>;

struct AdapterUse {
  std::string name;
  double weight = 1.0;
  double text_encoder_weight = 1.0;
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
  SizeIds size_ids{};
  SizeIds negative_size_ids{};

  bool cfg() const { return guidance_scale > 1.0; }
  // Whether step `step` (from 0) of `total` runs guidance.
  bool cfg_at(uint32_t step, uint32_t total) const {
    const double place = static_cast<double>(step) / total;
    return cfg() && place >= guidance_start && place < guidance_end;
  }
};

struct ImageJob {
  std::string request_id;
  Prompts prompts;
  DenoiseOptions denoise;
  uint64_t seed = 0;  // image i uses seed + i, wrapping
  uint32_t num_images = 1;
  std::vector<AdapterUse> adapters;  // in request order, those of weight 0 left out
  ImageFormat format = ImageFormat::kPng;
  uint32_t quality = 90;
  int32_t priority = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_IMAGE_JOB_H_
