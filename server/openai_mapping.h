#ifndef HOTLORA_SERVER_OPENAI_MAPPING_H_
#define HOTLORA_SERVER_OPENAI_MAPPING_H_

// OpenAI's Images API to plain values and back, the only place. Its names and defaults are facts of that API
// (https://platform.openai.com/docs/api-reference/images/create).

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "hotlora/openai/v1/openai.pb.h"
#include "server/proto_mapping.h"
#include "src/adapters/adapter_info.h"
#include "src/base/error_details.h"
#include "src/request/image_events.h"
#include "src/request/image_request.h"

namespace hotlora {

// The request, and the fields that are refused here: what cannot be read, or asks for what is not supported.
MappedImageRequest FromProto(const openai::v1::CreateImageRequest& message);

// A request's error with the field names of this API.
absl::Status InOpenAiWords(const absl::Status& status);

// The adapters that a `model` names, in its order; none for the base model. What cannot be read is a violation of field
// "model"; names and the range of weights are not judged.
std::vector<AdapterRef> ReadModel(absl::string_view model, std::vector<FieldViolation>& violations);

// Puts a finished image at its place in the answer, with what the answer says of all images.
void PutImage(FinishedImage image, openai::v1::CreateImageResponse& response);

// The model that names these adapters, from which ReadModel reads them back.
openai::v1::Model ToModel(const std::vector<AdapterRef>& adapters);

// The base model and the adapters that a request can name.
openai::v1::ListModelsResponse ToModels(const std::vector<AdapterInfo>& adapters);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_OPENAI_MAPPING_H_
