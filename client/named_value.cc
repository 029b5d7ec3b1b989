#include "client/named_value.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

#include "src/base/invalid_argument.h"

namespace hotlora {

absl::Status WrongForm(absl::string_view flag, absl::string_view form, absl::string_view text) {
  return InvalidArgument(flag, " is \"", text, "\"; it is ", form);
}

absl::StatusOr<NamedValue> SplitNamed(absl::string_view flag, absl::string_view form, const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos) {
    return WrongForm(flag, form, text);
  }
  return NamedValue{text.substr(0, equals), text.substr(equals + 1)};
}

absl::Status AddBlocks(absl::string_view flag, absl::string_view form, absl::string_view text, absl::string_view value,
                       google::protobuf::RepeatedPtrField<v1::BlockWeight>& blocks) {
  for (const absl::string_view block : absl::StrSplit(value, ',')) {
    const std::vector<std::string> parts = absl::StrSplit(block, ':');
    double weight = 0;
    if (parts.size() != 2 || !absl::SimpleAtod(parts[1], &weight)) {
      return WrongForm(flag, form, text);
    }
    v1::BlockWeight* const added = blocks.Add();
    added->set_prefix(parts[0]);
    added->set_weight(weight);
  }
  return absl::OkStatus();
}

}  // namespace hotlora
