#ifndef HOTLORA_SERVER_SDAPI_MAPPING_H_
#define HOTLORA_SERVER_SDAPI_MAPPING_H_

// AUTOMATIC1111's API to plain values and back, the only place. Its names and defaults are facts of that API
// (https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API).

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include <google/protobuf/struct.pb.h>

#include "hotlora/sdapi/v1/sdapi.pb.h"
#include "server/proto_mapping.h"
#include "src/request/image_events.h"
#include "src/request/model_info.h"

namespace hotlora {

enum class SdapiTask { kTxt2Img, kImg2Img };

const char* TaskName(SdapiTask task);  // "txt2img"

// The request with the defaults of the API for what decides the picture.
sdapi::v1::GenerateRequest WithDefaults(sdapi::v1::GenerateRequest message, SdapiTask task);

// The request, and the fields that are refused here: what is not a number of its range, or would change the picture and
// is not supported. `message`: WithDefaults. `model`: the served one, for override_settings.
MappedImageRequest FromProto(const sdapi::v1::GenerateRequest& message, SdapiTask task, const ModelInfo& model);

// A request's error with the field names of this API.
absl::Status InSdapiWords(const absl::Status& status);

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

#endif  // HOTLORA_SERVER_SDAPI_MAPPING_H_
