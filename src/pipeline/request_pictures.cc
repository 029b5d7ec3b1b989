#include "src/pipeline/request_pictures.h"

#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/status_macros.h"
#include "src/image/resize.h"
#include "src/pipeline/decode_picture.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

absl::StatusOr<RequestPictures> Load(const ImageJob& job, MiddleSquare seen) {
  RequestPictures pictures;
  std::vector<FieldViolation> violations;
  if (job.has_init()) {
    absl::StatusOr<InitPicture> init = LoadInitPicture(job);
    if (absl::IsInvalidArgument(init.status())) {
      violations = GetErrorDetails(init.status()).violations;
    } else {
      ABSL_ASSIGN_OR_RETURN(pictures.init, std::move(init));
    }
  }
  for (const ControlUse& control : job.controls) {
    ABSL_ASSIGN_OR_RETURN(RgbImage image,
                          DecodePicture(absl::StrCat(control.field, ".image"), control.image, violations));
    if (image.pixels.empty()) {
      continue;
    }
    if (job.hires.has_value()) {
      RgbImage& larger = pictures.hires_controls.emplace_back(image);
      ResizeInit(larger, job.hires->width, job.hires->height);
    }
    RgbImage& picture = pictures.controls.emplace_back(std::move(image));
    ResizeInit(picture, job.denoise.width, job.denoise.height);
  }
  for (const ImagePromptUse& prompt : job.image_prompts) {
    std::vector<RgbImage>& squares = pictures.image_prompts.emplace_back();
    for (size_t i = 0; i < prompt.images.size(); ++i) {
      const std::string field = absl::StrCat(prompt.field, ".images[", i, "]");
      ABSL_ASSIGN_OR_RETURN(const RgbImage image, DecodePicture(field, prompt.images[i], violations));
      if (!image.pixels.empty()) {
        squares.push_back(CoverSquare(image, seen));
      }
    }
  }
  if (!violations.empty()) {
    return InvalidRequest(std::move(violations));
  }
  return pictures;
}

}  // namespace

int64_t ControlPictureBytes(const ImageJob& job) {
  const auto bytes = [](const DenoiseOptions& options) { return int64_t{3} * options.width * options.height; };
  return static_cast<int64_t>(job.controls.size()) *
         (bytes(job.denoise) + (job.hires.has_value() ? bytes(*job.hires) : 0));
}

absl::StatusOr<RequestPictures> LoadRequestPictures(const ImageJob& job, MiddleSquare seen) {
  try {
    return Load(job, seen);
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory, "no memory to decode an image");
  }
}

}  // namespace hotlora
