#ifndef HOTLORA_TESTS_FUZZ_REQUEST_CHECKS_H_
#define HOTLORA_TESTS_FUZZ_REQUEST_CHECKS_H_

// What holds for every request for images, whatever API it came by.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "server/proto_mapping.h"
#include "server/status_mapping.h"
#include "src/base/error_details.h"
#include "src/request/image_prompt_check.h"
#include "src/request/request_id.h"
#include "src/request/validation.h"
#include "src/request/weighted_prompt.h"

namespace hotlora {

inline void Check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

// Callers can read it, and it says what is wrong.
inline void CheckRefusal(const absl::Status& status) {
  constexpr size_t kMaxTrailerBytes = 8 * 1024;  // what most callers take
  const ErrorDetails details = GetErrorDetails(status);
  Check(status.code() == absl::StatusCode::kInvalidArgument && details.reason == "INVALID_REQUEST");
  Check(!details.violations.empty());
  for (const FieldViolation& violation : details.violations) {
    Check(!violation.field.empty() && !violation.description.empty());
  }
  const grpc::Status answer = ToGrpcStatus(status);
  Check(answer.error_message().size() * 3 + answer.error_details().size() * 4 / 3 < kMaxTrailerBytes);
}

inline void CheckPrompts(const Prompts& prompts) {
  for (const std::string& text :
       {prompts.prompt, prompts.prompt_2, prompts.negative_prompt.value_or(""), prompts.negative_prompt_2}) {
    Check(text.size() <= kMaxPromptBytes);
    if (prompts.weighted) {
      Check(ParseEmphasis(text, prompts.long_prompts).ok());
    } else if (prompts.long_prompts) {
      Check(!SplitAtBreaks(text).empty());
    }
    (void)SplitAtWords(text, {"ink", "<s0>"});
  }
}

inline void CheckJob(const ImageJob& job) {
  const DenoiseOptions& denoise = job.denoise;
  for (const uint32_t side : {denoise.width, denoise.height}) {
    Check(side >= kMinSide && side <= kMaxSide && side % kSideMultiple == 0);
  }
  Check(uint64_t{denoise.width} * denoise.height <= kMaxPixels);
  Check(denoise.steps >= 1 && denoise.steps <= kMaxSteps && denoise.first_step() < denoise.steps);
  Check(denoise.guidance_scale >= 0 && denoise.guidance_scale <= kMaxGuidanceScale);
  Check(job.num_images >= 1 && job.num_images <= 16 && job.quality >= 1 && job.quality <= 100);
  Check(!job.request_id.empty() && job.request_id.size() <= kMaxRequestIdBytes);
  Check(job.adapters.size() <= kMaxAdapters && job.embeddings.size() <= kMaxEmbeddings);
  for (const AdapterUse& adapter : job.adapters) {
    Check(!adapter.name.empty() && adapter.weight >= -kMaxAdapterWeight && adapter.weight <= kMaxAdapterWeight);
  }
  Check(job.image_prompts.size() <= kMaxImagePrompts);
  for (const ImagePromptUse& prompt : job.image_prompts) {
    Check(!prompt.name.empty() && !prompt.images.empty() && prompt.images.size() <= kMaxPromptImages);
    Check(prompt.scale >= 0 && prompt.scale <= kMaxImagePromptScale && prompt.blocks.size() <= kMaxBlocks);
  }
  CheckPrompts(job.prompts);
}

// `words`: absl::Status(const absl::Status&), which gives an error the field names of the API.
template <typename Words>
void CheckMapped(const MappedImageRequest& mapped, Words words) {
  static const std::vector<std::string> kAttentions = {"mid_block.attn2"};
  RequestLimits limits{64, 1};
  limits.cross_attentions = kAttentions;
  if (!mapped.violations.empty()) {
    CheckRefusal(InvalidRequest(mapped.violations));
  }
  const absl::StatusOr<ImageJob> job = ValidateImageRequest(mapped.request, limits);
  if (!job.ok()) {
    CheckRefusal(words(job.status()));
  } else {
    CheckJob(*job);
  }
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FUZZ_REQUEST_CHECKS_H_
