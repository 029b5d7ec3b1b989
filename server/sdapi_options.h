#ifndef HOTLORA_SERVER_SDAPI_OPTIONS_H_
#define HOTLORA_SERVER_SDAPI_OPTIONS_H_

// AUTOMATIC1111's options: one set of values is in force, and cannot be changed.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <google/protobuf/struct.pb.h>
#include <nlohmann/json.hpp>

#include "src/request/model_info.h"

namespace hotlora {

// Steps between the previews that GetProgress shows.
inline constexpr uint32_t kSdapiPreviewEvery = 10;
inline constexpr size_t kModelHashDigits = 10;
inline constexpr int kMaxOptions = 500;  // of one call; the web UI itself has about 300

// What clients choose the model by: "NAME [first digits of its hash]".
std::string ModelTitle(const ModelInfo& model);

// The options that are in force: of those that shape a picture, the ones that clients look at.
class OptionsInForce {
 public:
  explicit OptionsInForce(const ModelInfo& model);  // which outlives this object

  // The JSON of /options.
  std::string Json() const { return options_.dump(); }

  // Why an option cannot have that value, as the description of a bad field; "" if it has it. Null and an empty list
  // are as if it were not named.
  std::string Fault(absl::string_view name, const google::protobuf::Value& value) const;

  // InvalidArgument (INVALID_REQUEST) that names each option with a fault, or says that there are too many.
  absl::Status Check(const google::protobuf::Struct& options) const;

 private:
  const ModelInfo& model_;
  const nlohmann::ordered_json options_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SDAPI_OPTIONS_H_
