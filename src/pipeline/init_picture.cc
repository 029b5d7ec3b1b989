#include "src/pipeline/init_picture.h"

#include <new>
#include <string>
#include <utility>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/status_macros.h"
#include "src/image/resize.h"
#include "src/pipeline/decode_picture.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

constexpr uint8_t kRepaintFrom = 128;

absl::StatusOr<InitPicture> Load(const ImageJob& job) {
  const uint32_t width = job.denoise.width, height = job.denoise.height;
  std::vector<FieldViolation> violations;
  InitPicture picture;
  ABSL_ASSIGN_OR_RETURN(picture.image, DecodePicture("init_image", job.init_image, violations));
  RgbImage mask;
  if (!job.mask_image.empty()) {
    ABSL_ASSIGN_OR_RETURN(mask, DecodePicture("mask_image", job.mask_image, violations));
  }
  if (!violations.empty()) {
    return InvalidRequest(std::move(violations));
  }
  ResizeInit(picture.image, width, height);
  if (!job.mask_image.empty()) {
    picture.repaint = Luma(mask.width == width && mask.height == height ? mask : ResizeNearest(mask, width, height));
    for (uint8_t& pixel : picture.repaint) {
      pixel = pixel >= kRepaintFrom ? 1 : 0;
    }
  }
  return picture;
}

}  // namespace

void ResizeInit(RgbImage& image, uint32_t width, uint32_t height) {
  if (image.width != width || image.height != height) {
    image = ResizeLanczos(image, width, height);
  }
}

absl::StatusOr<InitPicture> LoadInitPicture(const ImageJob& job) {
  try {
    return Load(job);
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory, "no memory to decode an image");
  }
}

}  // namespace hotlora
