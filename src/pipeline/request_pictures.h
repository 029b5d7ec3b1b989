#ifndef HOTLORA_SRC_PIPELINE_REQUEST_PICTURES_H_
#define HOTLORA_SRC_PIPELINE_REQUEST_PICTURES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "src/image/middle_square.h"
#include "src/image/rgb_image.h"
#include "src/pipeline/init_picture.h"
#include "src/request/image_job.h"

namespace hotlora {

// The pictures that a request sends, at the sizes at which the pipeline takes them.
struct RequestPictures {
  InitPicture init;  // empty without an init image
  // One for each of the job's controls, at the size of each pass; none for a second pass that the job does not have.
  std::vector<RgbImage> controls, hires_controls;
  // For each of the job's image prompts, the squares that the image encoder sees of its pictures.
  std::vector<std::vector<RgbImage>> image_prompts;
};

// Bytes of `controls` and `hires_controls` of the job.
int64_t ControlPictureBytes(const ImageJob& job);

// Decodes the job's init image and mask (LoadInitPicture), the pictures of its controls, which are resized by Lanczos
// if their sizes differ, and those of its image prompts, of which `seen` stays. For the picture thread. InvalidArgument
// (INVALID_REQUEST) names each file that cannot be decoded; ResourceExhausted.
absl::StatusOr<RequestPictures> LoadRequestPictures(const ImageJob& job, MiddleSquare seen);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_REQUEST_PICTURES_H_
