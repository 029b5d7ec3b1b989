#ifndef HOTLORA_SERVER_SDAPI_MAPPING_H_
#define HOTLORA_SERVER_SDAPI_MAPPING_H_

// AUTOMATIC1111's requests to plain values, the only place. Its names and defaults are facts of that API
// (https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API).

#include "absl/status/status.h"

#include "hotlora/sdapi/v1/sdapi.pb.h"
#include "server/proto_mapping.h"
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

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SDAPI_MAPPING_H_
