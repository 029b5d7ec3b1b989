#ifndef HOTLORA_SERVER_SDAPI_OPTIONS_H_
#define HOTLORA_SERVER_SDAPI_OPTIONS_H_

// AUTOMATIC1111's options: one set of values is in force, and cannot be changed.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <google/protobuf/struct.pb.h>

#include "src/request/model_info.h"

namespace hotlora {

// Steps between the previews that GetProgress shows.
inline constexpr uint32_t kSdapiPreviewEvery = 10;
inline constexpr size_t kModelHashDigits = 10;
inline constexpr int kMaxOptions = 500;  // of one call; the web UI itself has about 300

// What clients choose the model by: "NAME [first digits of its hash]".
std::string ModelTitle(const ModelInfo& model);

// The JSON of /options.
std::string OptionsJson(const ModelInfo& model);

// Why an option cannot have that value, as the description of a bad field; "" if it has it. Null and an empty list
// are as if it were not named.
std::string OptionFault(absl::string_view name, const google::protobuf::Value& value, const ModelInfo& model);

// InvalidArgument (INVALID_REQUEST) that names each option with a fault, or says that there are too many.
absl::Status CheckOptions(const google::protobuf::Struct& options, const ModelInfo& model);

// The value as JSON, at most 100 bytes, for messages.
std::string ToText(const google::protobuf::Value& value);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SDAPI_OPTIONS_H_
