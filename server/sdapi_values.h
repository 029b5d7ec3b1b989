#ifndef HOTLORA_SERVER_SDAPI_VALUES_H_
#define HOTLORA_SERVER_SDAPI_VALUES_H_

// The kinds of values that AUTOMATIC1111's API has in its JSON, apart from plain fields.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include <google/protobuf/struct.pb.h>

#include "src/request/image_request.h"

namespace hotlora {

// The entries in the order of their names, so that equal calls get equal messages. Valid as long as `entries` is.
std::vector<std::pair<absl::string_view, const google::protobuf::Value*>> InOrder(
    const google::protobuf::Struct& entries);

// The value as JSON, at most 100 bytes, for messages.
std::string ToText(const google::protobuf::Value& value);

// `text` with the names that callers of this API know, where it has those of our enums.
std::string WithSdapiNames(absl::string_view text);

// A sampler by its name, which may have a schedule behind it: "DPM++ 2M Karras".
struct NamedSampler {
  std::optional<Sampler> sampler;  // nullopt: there is none of that name
  std::optional<NoiseScheduleKind> schedule;
};
NamedSampler ReadSamplerName(absl::string_view name);

// Whether a script has nothing to do: {"args": []}, {"args": [false]}.
bool IsIdle(const google::protobuf::Value& script);

// The bytes of an image in base64, alone or as a data URI. If there are none, `fault` describes the bad field.
std::string DecodeImageText(absl::string_view text, std::string& fault);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SDAPI_VALUES_H_
