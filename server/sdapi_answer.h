#ifndef HOTLORA_SERVER_SDAPI_ANSWER_H_
#define HOTLORA_SERVER_SDAPI_ANSWER_H_

// What AUTOMATIC1111's API says of the images of a request.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include <google/protobuf/struct.pb.h>

#include "hotlora/sdapi/v1/sdapi.pb.h"
#include "server/sdapi_mapping.h"
#include "src/request/image_events.h"
#include "src/request/model_info.h"

namespace hotlora {

// A finished image without its data.
struct SdapiImage {
  uint64_t seed = 0;
  uint32_t width = 0, height = 0;
  std::string parameters;  // FinishedImage::parameters
};

// The answer's `parameters` and `info`. `request`: WithDefaults, without its images. `images`: at least one.
google::protobuf::Struct ToParameters(const sdapi::v1::GenerateRequest& request);
std::string ToInfo(const sdapi::v1::GenerateRequest& request, SdapiTask task, const std::vector<SdapiImage>& images,
                   const ImageSummary& summary, const ModelInfo& model, absl::Time begin);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SDAPI_ANSWER_H_
