#ifndef HOTLORA_CLIENT_NAMED_VALUE_H_
#define HOTLORA_CLIENT_NAMED_VALUE_H_

// Values of options about one of several things: NAME=VALUE. `flag` is the option, `form` what its values look like,
// both for errors, and `text` the whole value.

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "hotlora/v1/images.pb.h"

namespace hotlora {

struct NamedValue {
  std::string name, value;
};

// InvalidArgument: the value has not that form.
absl::Status WrongForm(absl::string_view flag, absl::string_view form, absl::string_view text);

// At the last equals sign: names may have some.
absl::StatusOr<NamedValue> SplitNamed(absl::string_view flag, absl::string_view form, const std::string& text);

// Adds weights by block, `value`: PREFIX:WEIGHT[,PREFIX:WEIGHT...].
absl::Status AddBlocks(absl::string_view flag, absl::string_view form, absl::string_view text, absl::string_view value,
                       google::protobuf::RepeatedPtrField<v1::BlockWeight>& blocks);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_NAMED_VALUE_H_
