#ifndef HOTLORA_SRC_PIPELINE_INIT_PICTURE_H_
#define HOTLORA_SRC_PIPELINE_INIT_PICTURE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "src/image/rgb_image.h"
#include "src/request/image_job.h"

namespace hotlora {

// What a request's images begin with, at the request's size.
struct InitPicture {
  RgbImage image;
  std::vector<uint8_t>
      repaint;  // height x width: 1 where the mask asks for a new picture, else 0; empty without a mask
};

// Decodes the job's init image and mask; if their sizes differ from the job's, the image is resized by Lanczos, the
// mask to the nearest pixel. Of a mask, luma of 128 and more is repainted. For the picture thread: an image of the most
// pixels takes some tenths of a second. InvalidArgument (INVALID_REQUEST) names each of `init_image` and `mask_image`
// that cannot be decoded; ResourceExhausted. REQUIRES: job.has_init().
absl::StatusOr<InitPicture> LoadInitPicture(const ImageJob& job);

// Resizes an image to begin with by Lanczos, unless it has that size.
void ResizeInit(RgbImage& image, uint32_t width, uint32_t height);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_INIT_PICTURE_H_
