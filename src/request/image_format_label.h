#ifndef HOTLORA_SRC_REQUEST_IMAGE_FORMAT_LABEL_H_
#define HOTLORA_SRC_REQUEST_IMAGE_FORMAT_LABEL_H_

#include "src/request/image_request.h"

namespace hotlora {

// The metric label `format` of hotlora_images_total and its like.
inline const char* FormatLabel(ImageFormat format) {
  static constexpr const char* kNames[] = {"png", "jpeg", "webp", "raw_rgb8"};
  return kNames[static_cast<int>(format)];
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_IMAGE_FORMAT_LABEL_H_
