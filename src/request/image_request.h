#ifndef HOTLORA_SRC_REQUEST_IMAGE_REQUEST_H_
#define HOTLORA_SRC_REQUEST_IMAGE_REQUEST_H_

// A request for images as plain values, as the caller sent it: unset differs from 0. proto/hotlora/v1/images.proto
// documents each field; request/validation.h turns it into an ImageJob.

#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "src/base/enum_size.h"
#include "src/image/rgb_image.h"
#include "src/request/block_weights.h"

namespace hotlora {

enum class Sampler {
  kEuler,
  kEulerAncestral,
  kHeun,
  kDdim,
  kDpmpp2M,
  kDpmpp2MSde,
  kUniPc,
  kLcm,
  kTcd,
  kDpm2,
  kDpm2Ancestral,
  kLms,
  kDeis,
  kDpmpp2S,
  kDpmpp3M,
  kDpmpp3MSde
};
// kDefault is the checkpoint's own. Karras, exponential, beta and Lu spread their sigmas by a formula; trailing keeps
// the checkpoint's sigma spacing; Align Your Steps (AYS) and SGM uniform have timesteps of their own.
enum class NoiseScheduleKind { kDefault, kKarras, kExponential, kTrailing, kBeta, kAys, kSgmUniform, kLu };
enum class PromptSyntax { kPlain, kWeighted };

// Where an adapter is, coldest first, and what metrics and the access log call it.
enum class AdapterTier { kDisk, kHost, kDevice };
inline constexpr const char* kAdapterTierNames[] = {"disk", "host", "device"};
static_assert(std::size(kAdapterTierNames) == kEnumSize<AdapterTier>);

struct AdapterRef {
  std::string name;
  std::optional<double> weight;               // unset: 1
  std::optional<double> text_encoder_weight;  // unset: weight
  std::optional<double> start, end;           // EvaluationRange; unset: 0, 1
  std::vector<BlockWeight> blocks;            // in place of weight
};

struct ControlRef {
  std::string name;
  std::string image;                 // the control map, a file
  std::optional<double> scale;       // unset: 1
  std::optional<double> start, end;  // EvaluationRange; unset: 0, 1
  std::optional<uint32_t> type;      // of a union net
};

struct ImagePromptRef {
  std::string name;
  std::vector<std::string> images;  // files
  std::optional<double> scale;      // unset: 1
  std::vector<BlockWeight> blocks;  // in place of scale
};

struct EmbeddingRef {
  std::string name;
  std::optional<std::string> token;  // unset: name
};

// SDXL's micro-conditioning, in pixels; unset: original and target are the image's size, crop is 0.
struct SizeConditioning {
  std::optional<uint32_t> original_width, original_height, crop_left, crop_top, target_width, target_height;
};

// A second pass over the finished image, resized by Lanczos.
struct HiresPass {
  std::optional<double> scale, strength;  // unset: 2, 0.5
  std::optional<uint32_t> steps;          // unset: the request's
};

struct ImageRequest {
  std::string request_id;
  std::string prompt;
  std::optional<std::string> negative_prompt, prompt_2, negative_prompt_2;
  std::optional<uint32_t> width, height, steps;
  std::optional<double> guidance_scale, guidance_rescale, guidance_start, guidance_end, eta;
  std::optional<Sampler> sampler;
  std::optional<NoiseScheduleKind> schedule;
  std::optional<uint64_t> seed;
  std::optional<uint32_t> num_images, clip_skip;
  std::vector<AdapterRef> adapters;
  std::optional<SizeConditioning> size_conditioning, negative_size_conditioning;
  std::string init_image, mask_image;
  std::optional<double> strength;
  std::optional<HiresPass> hires;
  std::optional<ImageFormat> format;
  std::optional<uint32_t> quality, preview_every;
  std::optional<int32_t> priority;
  std::optional<PromptSyntax> prompt_syntax;
  std::optional<bool> long_prompts, lora_tags;
  std::vector<EmbeddingRef> embeddings;
  std::vector<ControlRef> controls;
  std::vector<ImagePromptRef> image_prompts;
  // Set by the server, never by the caller: who asks, in any spelling that tells callers apart, and how long they wait,
  // as SteadyNow has it.
  std::string caller;
  absl::Time deadline = absl::InfiniteFuture();
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_IMAGE_REQUEST_H_
