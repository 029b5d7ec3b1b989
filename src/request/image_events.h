#ifndef HOTLORA_SRC_REQUEST_IMAGE_EVENTS_H_
#define HOTLORA_SRC_REQUEST_IMAGE_EVENTS_H_

// What a request for images is told while it runs and when it ends, as plain values.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "src/request/block_weights.h"
#include "src/request/evaluation_range.h"
#include "src/request/image_request.h"

namespace hotlora {

enum class WaitStage { kQueue, kAdapter };

struct ImageWaiting {
  uint32_t queue_position = 0;  // 0: next
  WaitStage stage = WaitStage::kQueue;
  double estimated_seconds = 0;  // 0: unknown
};

struct ImageProgress {
  uint32_t image_index = 0;
  uint32_t step = 0;  // from 1
  uint32_t total_steps = 0;
  double step_seconds = 0;
  std::string preview;  // JPEG; empty if none is due
};

struct FinishedImage {
  uint32_t index = 0;
  uint64_t seed = 0;
  uint32_t width = 0, height = 0;
  ImageFormat format = ImageFormat::kPng;
  std::string data;        // encoded
  std::string parameters;  // what made it, as in the file's metadata (png_parameters.h)
};

// One adapter as a request had it.
struct AppliedAdapter {
  std::string name;
  std::string content_sha256;
  double weight = 1.0;
  AdapterTier tier_found = AdapterTier::kDisk;
  uint32_t matched_modules = 0;
  std::vector<std::string> unmatched_keys;
  std::vector<std::string> notes;  // sentences on what the file says of itself and what it is
  double load_seconds = 0;         // from where it was found to where it can be applied
  EvaluationRange range;
  std::vector<BlockWeight> blocks;  // in place of weight
};

// What it took to bring a request's adapter set into effect, in seconds. Phases that did not happen are 0.
struct SwapCost {
  bool changed = false;  // false: the set was in effect already
  bool merged = false;   // into the weights; else beside them
  double lookup_seconds = 0, read_seconds = 0, parse_seconds = 0, upload_seconds = 0;  // of all adapters together
  double apply_seconds = 0, restore_seconds = 0;
  double total_seconds = 0;
};

// One textual-inversion embedding as a request had it.
struct AppliedEmbedding {
  std::string name;
  std::string content_sha256;
  std::string token;
  uint32_t vectors = 0;
};

// A ControlNet or an image prompt as a request had it.
struct AppliedControl {
  std::string name;
  std::string content_sha256;
  double scale = 1.0;
  AdapterTier tier_found = AdapterTier::kDisk;
  double seconds = 0;  // from where it was found to where it can be used
};

struct ImageSummary {
  double queue_seconds = 0;
  double adapter_seconds = 0;  // loading and applying
  double encode_seconds = 0;
  double denoise_seconds = 0;
  double decode_seconds = 0;  // with image encoding
  double total_seconds = 0;
  std::vector<AppliedAdapter> adapters;
  std::vector<AppliedEmbedding> embeddings;
  std::vector<AppliedControl> controls, image_prompts;
  SwapCost swap;
  std::string model_sha256;
  std::string dtype;
  Sampler sampler = Sampler::kEuler;
  NoiseScheduleKind schedule = NoiseScheduleKind::kDefault;
  uint32_t width = 0, height = 0;
};

// Hears what becomes of one request. Called by the engine's threads, one call at a time, in this order: OnWaiting*,
// then OnProgress* and OnImage* mixed, then OnEnd once, after which the engine drops the listener. Must neither block
// nor throw.
class ImageListener {
 public:
  virtual ~ImageListener() = default;
  virtual void OnWaiting(const ImageWaiting& waiting) = 0;
  virtual void OnProgress(const ImageProgress& progress) = 0;
  virtual void OnImage(FinishedImage image) = 0;
  // OK, or why the request ended without all its images. What it held is released and counted before this call.
  virtual void OnEnd(const absl::Status& status, const ImageSummary& summary) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_IMAGE_EVENTS_H_
