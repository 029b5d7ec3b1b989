#ifndef HOTLORA_SERVER_PROTO_MAPPING_H_
#define HOTLORA_SERVER_PROTO_MAPPING_H_

// Messages to plain values and back, the only place. What an unset field means is
// src/request/validation.h's affair.

#include <string>
#include <vector>

#include "hotlora/v1/adapters.pb.h"
#include "hotlora/v1/controls.pb.h"
#include "hotlora/v1/images.pb.h"
#include "hotlora/v1/server.pb.h"
#include "src/adapters/adapter_info.h"
#include "src/base/error_details.h"
#include "src/engine/engine.h"
#include "src/request/image_events.h"
#include "src/request/image_request.h"

namespace hotlora {

// A request, and the fields that were not carried over: enum numbers that this release does not
// know, too many adapters.
struct MappedImageRequest {
  ImageRequest request;
  std::vector<FieldViolation> violations;
};
MappedImageRequest FromProto(const v1::GenerateImagesRequest& message);

v1::Accepted ToProto(const Admission& admission);
v1::Waiting ToProto(const ImageWaiting& waiting);
v1::Progress ToProto(const ImageProgress& progress);
v1::Summary ToProto(const ImageSummary& summary);
v1::Adapter ToProto(const AdapterInfo& info);
// A ControlNet or an image prompt.
v1::Control ToControl(const AdapterInfo& info);
v1::Sampler ToProto(Sampler sampler);
v1::NoiseSchedule ToProto(NoiseScheduleKind schedule);

// Everything but the data.
v1::Image ToProtoWithoutData(const FinishedImage& image);

// The media type of an image's bytes, as in HTTP's Content-Type.
const char* MediaType(ImageFormat format);

// `max_message_bytes`: the listener's limit, the one thing here that the engine does not know.
v1::ServerInfo ToProto(const ModelInfo& model, const EngineOptions& options, uint64_t max_message_bytes);

v1::BaseIntegrity ToProto(const BaseReport& report);
v1::Statistics ToProto(const EngineStatistics& statistics, const std::string& device);  // the model's device

}  // namespace hotlora

#endif  // HOTLORA_SERVER_PROTO_MAPPING_H_
