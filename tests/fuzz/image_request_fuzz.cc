// A request for images from its bytes to the validated job, its prompts parsed, or to the answer that refuses it.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <google/protobuf/stubs/logging.h>

#include "hotlora/v1/images.pb.h"
#include "server/proto_mapping.h"
#include "server/status_mapping.h"
#include "src/base/error_details.h"
#include "src/request/request_id.h"
#include "src/request/validation.h"
#include "src/request/weighted_prompt.h"

namespace {

void Check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

// Callers can read it, and it says what is wrong.
void CheckRefusal(const absl::Status& status) {
  constexpr size_t kMaxTrailerBytes = 8 * 1024;  // what most callers take
  const hotlora::ErrorDetails details = hotlora::GetErrorDetails(status);
  Check(status.code() == absl::StatusCode::kInvalidArgument && details.reason == "INVALID_REQUEST");
  Check(!details.violations.empty());
  for (const hotlora::FieldViolation& violation : details.violations) {
    Check(!violation.field.empty() && !violation.description.empty());
  }
  const grpc::Status answer = hotlora::ToGrpcStatus(status);
  Check(answer.error_message().size() * 3 + answer.error_details().size() * 4 / 3 < kMaxTrailerBytes);
}

void CheckPrompts(const hotlora::Prompts& prompts) {
  for (const std::string& text :
       {prompts.prompt, prompts.prompt_2, prompts.negative_prompt.value_or(""), prompts.negative_prompt_2}) {
    Check(text.size() <= hotlora::kMaxPromptBytes);
    if (prompts.weighted) {
      Check(hotlora::ParseEmphasis(text, prompts.long_prompts).ok());
    } else if (prompts.long_prompts) {
      Check(!hotlora::SplitAtBreaks(text).empty());
    }
    (void)hotlora::SplitAtWords(text, {"ink", "<s0>"});
  }
}

void CheckJob(const hotlora::ImageJob& job) {
  const hotlora::DenoiseOptions& denoise = job.denoise;
  for (const uint32_t side : {denoise.width, denoise.height}) {
    Check(side >= hotlora::kMinSide && side <= hotlora::kMaxSide && side % hotlora::kSideMultiple == 0);
  }
  Check(uint64_t{denoise.width} * denoise.height <= hotlora::kMaxPixels);
  Check(denoise.steps >= 1 && denoise.steps <= hotlora::kMaxSteps && denoise.first_step() < denoise.steps);
  Check(denoise.guidance_scale >= 0 && denoise.guidance_scale <= hotlora::kMaxGuidanceScale);
  Check(job.num_images >= 1 && job.num_images <= 16 && job.quality >= 1 && job.quality <= 100);
  Check(!job.request_id.empty() && job.request_id.size() <= hotlora::kMaxRequestIdBytes);
  Check(job.adapters.size() <= hotlora::kMaxAdapters && job.embeddings.size() <= hotlora::kMaxEmbeddings);
  for (const hotlora::AdapterUse& adapter : job.adapters) {
    Check(!adapter.name.empty() && adapter.weight >= -hotlora::kMaxAdapterWeight &&
          adapter.weight <= hotlora::kMaxAdapterWeight);
  }
  CheckPrompts(job.prompts);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool silent = google::protobuf::SetLogHandler(nullptr) != nullptr;  // else a line for each bad text
  (void)silent;
  hotlora::v1::GenerateImagesRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) {
    return 0;
  }
  const hotlora::RequestLimits limits{64, 1};
  hotlora::MappedImageRequest mapped = hotlora::FromProto(message);
  if (!mapped.violations.empty()) {
    CheckRefusal(hotlora::InvalidRequest(mapped.violations));
  }
  const absl::StatusOr<hotlora::ImageJob> job = hotlora::ValidateImageRequest(mapped.request, limits);
  if (!job.ok()) {
    CheckRefusal(job.status());
  } else {
    CheckJob(*job);
  }
  return 0;
}
